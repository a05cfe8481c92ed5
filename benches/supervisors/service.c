/* service.c - a service that is the same under every supervisor: service [MODE [NUMBER]]
 * It writes "PID NANOSECONDS" to $BENCH_DIR/starts when it begins, and ends by itself after some minutes, whatever happens.
 *
 * (none)    waits for a signal             stubborn  the same, and SIGTERM does not end it
 * helper    the same, with a child that has left by double fork and setsid
 * exits     ends with status 7 at SIGUSR1; then its pid is in $BENCH_DIR/ended
 * count N   N lines "PID NUMBER", one each millisecond; how many is in $BENCH_DIR/written.PID
 * flood N   N seconds long 200 MB/s in lines of 100 bytes; then "LINES LONGEST_WRITE_NS" to $BENCH_DIR/flood
 * serve N   a line for each line, on the socket that was given, or on port N of 127.0.0.1 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_S = 900, LINE = 100, LINES_PER_MS = 2000 };

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int opened(const char *name, int flags) {
    char path[4096];
    const char *dir = getenv("BENCH_DIR");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : ".", name);
    int fd = open(path, flags | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) _exit(99);
    return fd;
}

static void tell(const char *name, long first, uint64_t second) {
    char line[64];
    int length = snprintf(line, sizeof line, "%ld %llu\n", first, (unsigned long long)second);
    int fd = opened(name, O_WRONLY | O_APPEND);
    if (write(fd, line, (size_t)length) != length) _exit(98);
    close(fd);
}

static void until(uint64_t ns) {
    struct timespec at = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void count(long lines) {
    char name[64];
    snprintf(name, sizeof name, "written.%d", (int)getpid());
    int fd = opened(name, O_RDWR);
    if (ftruncate(fd, sizeof(uint64_t)) != 0) _exit(97);
    volatile uint64_t *written = mmap(NULL, sizeof *written, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (written == MAP_FAILED) _exit(96);
    uint64_t start = now_ns();
    for (long at = 0; at < lines; at++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%d %ld\n", (int)getpid(), at);
        if (write(STDOUT_FILENO, line, (size_t)length) != length) _exit(95);
        *written = (uint64_t)at + 1;
        until(start + (uint64_t)at * 1000000u);
    }
}

static void flood(long seconds) {
    static char block[LINES_PER_MS * LINE];
    uint64_t start = now_ns(), end = start + (uint64_t)seconds * 1000000000u, longest = 0, number = 0;
    memset(block, 'x', sizeof block);
    for (uint64_t ms = 0; now_ns() < end; ms++) {
        for (int at = 0; at < LINES_PER_MS; at++) {
            snprintf(block + at * LINE, LINE, "%012llu", (unsigned long long)number++);
            block[at * LINE + 12] = ' ';
            block[at * LINE + LINE - 1] = '\n';
        }
        for (size_t done = 0; done < sizeof block;) {
            uint64_t before = now_ns();
            ssize_t count = write(STDOUT_FILENO, block + done, sizeof block - done);
            if (count <= 0) _exit(95);
            uint64_t took = now_ns() - before;
            if (took > longest) longest = took;
            done += (size_t)count;
        }
        until(start + ms * 1000000u);
    }
    tell("flood", (long)number, longest);
}

static void *answer(void *argument) {
    int fd = (int)(intptr_t)argument;
    char line[256];
    ssize_t length;
    while ((length = read(fd, line, sizeof line)) > 0)
        if (line[length - 1] == '\n' && write(fd, "PONG\n", 5) != 5) break;
    close(fd);
    return NULL;
}

static void serve(long port) {
    int listener = 3, yes = 1;
    if (!getenv("LISTEN_FDS")) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0) _exit(94);
    }
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, NULL, answer, (void *)(intptr_t)fd) == 0) pthread_detach(thread);
    }
}

static void ends(void) {
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    tell("starts", (long)getpid(), now_ns());
    if (sigwait(&set, &number) != 0) _exit(93);
    tell("ended", (long)getpid(), now_ns());
    _exit(7);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[2]) : 0;
    alarm(LIFE_S);
    if (strcmp(mode, "stubborn") == 0) signal(SIGTERM, SIG_IGN);
    if (strcmp(mode, "exits") == 0) ends();
    if (strcmp(mode, "helper") == 0 && fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        alarm(LIFE_S);
        tell("helpers", (long)getpid(), now_ns());
        for (;;) pause();
    }
    tell("starts", (long)getpid(), now_ns());
    if (strcmp(mode, "count") == 0) count(number);
    if (strcmp(mode, "flood") == 0) flood(number);
    if (strcmp(mode, "serve") == 0) serve(number);
    for (;;) pause();
}
