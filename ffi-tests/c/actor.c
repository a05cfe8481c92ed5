/* actor.c - a service that does what it is told: actor UNIT DIR [WORD]...
 * It writes "UNIT PID" to DIR/starts when it begins, and ends with the number in DIR/UNIT.exit at SIGUSR1.
 *
 * fd=N       a line end there when it is ready, after ready_ms=N; notify: READY=1 by sd_notify(3) then
 * exit=N     ends by itself with this status, after after_ms=N
 * term=N     the status with which SIGTERM ends it; ignore: SIGTERM does not
 * helpers=N  children that stay; orphans=N: the same by double fork, in sessions of their own
 * flood=N    so many KiB to standard output, without a line end
 * linked     it links libhandoff and can be replaced; overlap: in overlap mode */
#define _GNU_SOURCE
#include <fcntl.h>
#include <handoff.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char **words;
static handoff *h;
static sigset_t handled;

/* The number of a word NAME=NUMBER; 1 of a word NAME; -1 without it. */
static long word(const char *name) {
    size_t length = strlen(name);
    for (char **each = words + 3; *each; each++) {
        if (strcmp(*each, name) == 0) return 1;
        if (strncmp(*each, name, length) == 0 && (*each)[length] == '=') return atol(*each + length + 1);
    }
    return -1;
}

static void pause_ms(long ms) {
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (ms > 0) nanosleep(&time, NULL);
}

static void tell_start(void) {
    char path[4096], line[128];
    snprintf(path, sizeof path, "%s/starts", words[2]);
    int length = snprintf(line, sizeof line, "%s %d\n", words[1], (int)getpid());
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, (size_t)length) != length) _exit(99);
    close(fd);
}

static int told_status(void) {
    char path[4096], text[16] = "";
    snprintf(path, sizeof path, "%s/%s.exit", words[2], words[1]);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) _exit(98);
    return atoi(text);
}

/* Before a fork this process is called what its child is to be called: so nobody ever sees two of its name. */
static void call_me(const char *role) { memcpy(words[0], role, strlen(role)); }

static void notify_ready(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !path || strlen(path) >= sizeof address.sun_path) _exit(91);
    strcpy(address.sun_path, path);
    if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, sizeof address) != 7) _exit(91);
    close(fd);
}

static void rest_forever(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (;;) pause();
}

static void fork_helpers(void) {
    call_me("help:");
    for (long n = word("helpers"); n > 0; n--)
        if (fork() == 0) rest_forever();
    for (long n = word("orphans"); n > 0; n--) {
        pid_t between = fork();
        if (between == 0) {
            setsid();
            if (fork() == 0) rest_forever();
            _exit(0);
        }
        waitpid(between, NULL, 0);
    }
    call_me("main:");
}

static void flood(void) {
    char block[1024];
    memset(block, 'x', sizeof block);
    for (long n = word("flood"); n > 0; n--)
        if (write(STDOUT_FILENO, block, sizeof block) < 0) _exit(97);
}

/* Until it is told to end; its status. */
static int obey(void) {
    struct timespec now, left;
    long after = word("exit") >= 0 ? word("after_ms") : 1000000000;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + (after > 0 ? after : 0);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        long long ms = end - (now.tv_sec * 1000LL + now.tv_nsec / 1000000);
        if (ms <= 0) return (int)word("exit");
        left.tv_sec = ms / 1000;
        left.tv_nsec = ms % 1000 * 1000000;
        int got = sigtimedwait(&handled, NULL, &left);
        if (got == SIGUSR1) return told_status();
        if (got == SIGTERM && word("ignore") < 0) return word("term") > 0 ? (int)word("term") : 0;
    }
}

static void *obey_beside(void *unused) {
    (void)unused;
    for (int got; sigwait(&handled, &got) == 0;) {
        if (got == SIGUSR1) _exit(told_status());
        handoff_stop(h);
    }
    return NULL;
}

static void done(handoff *of, const handoff_event *e, void *user) { (void)user; handoff_done(of, e->id); }
static void seal(handoff *of, const handoff_event *e, void *user) { (void)user; handoff_sealed(of, e->id, NULL, 0); }

static int serve_linked(void) {
    char why[512];
    pthread_t thread;
    handoff_config *config = handoff_config_new();
    int mode = word("overlap") > 0 ? HANDOFF_MODE_OVERLAP : HANDOFF_MODE_EXCLUSIVE;
    if (handoff_config_set_int(config, HANDOFF_OPT_MODES, mode) < 0) return 90;
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "%s\n", why), 96;
    handoff_config_free(config);
    handoff_on_drain(h, done, NULL, NULL);
    handoff_on_seal(h, seal, NULL, NULL);
    handoff_on_resume(h, done, NULL, NULL);
    if (pthread_create(&thread, NULL, obey_beside, NULL) != 0) return 95;
    if (handoff_wait_for_begin(h, -1) < 0 || handoff_announce_ready(h, NULL, -1) < 0)
        return fprintf(stderr, "%s\n", handoff_errmsg(h, why, sizeof why)), 94;
    int end = handoff_serve(h);
    if (end == HANDOFF_REPLACED || end == HANDOFF_STOPPED) _exit(0);
    return fprintf(stderr, "%s\n", handoff_errmsg(h, why, sizeof why)), 93;
}

int main(int argc, char **argv) {
    words = argv;
    /* Its first word is a role, of five letters: the service itself, or one of its helpers. */
    if (argc < 3 || strlen(argv[0]) < 5) return 2;
    sigemptyset(&handled);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGUSR1);
    sigprocmask(SIG_BLOCK, &handled, NULL);
    tell_start();
    call_me("main:");
    if (word("linked") > 0) return serve_linked();
    fork_helpers();
    flood();
    pause_ms(word("ready_ms"));
    if (word("fd") > 0 && write((int)word("fd"), "\n", 1) != 1) return 92;
    if (word("notify") > 0) notify_ready();
    return obey();
}
