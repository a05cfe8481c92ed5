/* A daemon without data, in overlap mode: one epoll, and no thread of its own.
 *
 * A line PING is answered with "PONG pid build", and the connection is closed; any other line with the same, and it stays.
 * A datagram is answered, too. OVERLAP_FAULT chooses what goes wrong; OVERLAP_INIT names a file that it waits for while it
 * initialises, OVERLAP_DRAIN one that its last drain waits for, OVERLAP_LOG one for what it hears. */
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef BUILD
#define BUILD "overlap"
#endif

enum { CONNECTIONS_MAX = 1024, TCP_MAX = 16, CONTROL = CONNECTIONS_MAX, TCP, UDP };

static handoff *h;
static int epoll_fd = -1, tcp[TCP_MAX], udp[TCP_MAX];
static unsigned tcp_count, udp_count, open_connections;
static int connections[CONNECTIONS_MAX]; /* descriptors plus one; 0 is a free place */
static uint64_t draining;                /* the event, while the last drain is under way */

static void on_term(int signal) { (void)signal; handoff_stop(h); }

static int fault(const char *name) {
    const char *wanted = getenv("OVERLAP_FAULT");
    return wanted && strcmp(wanted, name) == 0;
}

static void say(const char *what) {
    const char *path = getenv("OVERLAP_LOG");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    char line[100];
    int size = snprintf(line, sizeof line, "%ld %s\n", (long)getpid(), what);
    if (write(fd, line, (size_t)size) != size) abort();
    close(fd);
}

static int exists(const char *variable) {
    const char *path = getenv(variable);
    return !path || access(path, F_OK) == 0;
}

static void watch(int fd, unsigned what) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)what << 32 | (uint32_t)fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) abort();
}

static void hang_up(unsigned place) {
    close(connections[place] - 1);
    connections[place] = 0;
    open_connections--;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        unsigned place = 0;
        while (place < CONNECTIONS_MAX && connections[place]) place++;
        if (place == CONNECTIONS_MAX) abort();
        connections[place] = fd + 1;
        open_connections++;
        watch(fd, place);
    }
}

static int pong(char *reply, size_t size) { return snprintf(reply, size, "PONG %ld " BUILD "\n", (long)getpid()); }

static void serve_connection(unsigned place) {
    char line[256], reply[100];
    int fd = connections[place] - 1, size = pong(reply, sizeof reply);
    ssize_t got = recv(fd, line, sizeof line, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || send(fd, reply, (size_t)size, MSG_NOSIGNAL) < 0 || memcmp(line, "PING", 4) == 0) hang_up(place);
}

static void serve_datagrams(int fd) {
    char line[256], reply[100];
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    int size = pong(reply, sizeof reply);
    while (recvfrom(fd, line, sizeof line, MSG_DONTWAIT, (struct sockaddr *)&from, &length) >= 0) {
        sendto(fd, reply, (size_t)size, MSG_NOSIGNAL, (struct sockaddr *)&from, length);
        length = sizeof from;
    }
}

/* An epoll watches the description, which others share: closing a number would not end that. */
static void forget(int fd) {
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
}

/* Does not accept any more; serves those that are there to their end. */
static void stop_accepting(void) {
    for (unsigned i = 0; i < tcp_count; i++) forget(tcp[i]);
    for (unsigned i = 0; i < udp_count; i++) forget(udp[i]);
    tcp_count = udp_count = 0;
}

static void finish_drain(void) {
    if (draining && open_connections == 0 && exists("OVERLAP_DRAIN")) {
        handoff_done(h, draining);
        draining = 0;
    }
}

static int on_event(const handoff_event *event) {
    switch (event->kind) {
    case HANDOFF_EVENT_DRAIN:
        say(event->flags & HANDOFF_EVENT_AFTER_COMMIT ? "drain after commit" : "drain");
        while (fault("hangs-in-drain")) pause();
        if (fault("drain-fails")) return handoff_failed(h, event->id, "it could not drain");
        stop_accepting();
        draining = event->id;
        return 0;
    case HANDOFF_EVENT_REPLACED: say("replaced"); _exit(0);
    case HANDOFF_EVENT_STOPPED: say("stopped"); exit(0);
    default: say("another event"); return handoff_done(h, event->id);
    }
}

static void take_listeners(void) {
    int fd;
    unsigned group = 0;
    while (tcp_count < TCP_MAX && (fd = handoff_take_listener(h, "kv", tcp_count)) >= 0) tcp[tcp_count++] = fd;
    while (tcp_count < TCP_MAX && (fd = handoff_take_listener(h, "group", group++)) >= 0) tcp[tcp_count++] = fd;
    while (udp_count < TCP_MAX && (fd = handoff_take_listener(h, "dns", udp_count)) >= 0) udp[udp_count++] = fd;
    if (tcp_count == 0) abort();
}

static int fail(const char *what) {
    char why[512];
    return fprintf(stderr, "%s: %s\n", what, handoff_errmsg(h, why, sizeof why)), 1;
}

static void loop(void) {
    for (unsigned i = 0; i < tcp_count; i++) watch(tcp[i], TCP);
    for (unsigned i = 0; i < udp_count; i++) watch(udp[i], UDP);
    watch(handoff_pollfd(h), CONTROL);
    for (;;) {
        struct epoll_event ready[64];
        int count = epoll_wait(epoll_fd, ready, 64, draining ? 10 : -1);
        for (int i = 0; i < count; i++) {
            unsigned what = (unsigned)(ready[i].data.u64 >> 32);
            int fd = (int)(uint32_t)ready[i].data.u64;
            if (what == TCP) accept_all(fd);
            else if (what == UDP) serve_datagrams(fd);
            else if (what < CONNECTIONS_MAX) serve_connection(what);
        }
        handoff_event event;
        int got;
        while ((got = handoff_dispatch(h, &event, sizeof event)) == 1) on_event(&event);
        if (got < 0) exit(fail("dispatch"));
        finish_drain();
    }
}

int main(void) {
    char why[512];
    handoff_config *config = handoff_config_new();
    int mode = fault("exclusive") ? HANDOFF_MODE_EXCLUSIVE : HANDOFF_MODE_OVERLAP;
    if (handoff_config_set_int(config, HANDOFF_OPT_MODES, mode) < 0) return 1;
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "%s\n", why), 1;
    handoff_config_free(config);
    signal(SIGTERM, on_term);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (fault("exits-early")) return fprintf(stderr, "this build is broken\n"), 9;
    if (handoff_wait_for_begin(h, -1) < 0) return fail("begin");
    say("begun");
    take_listeners();
    while (!exists("OVERLAP_INIT")) usleep(1000);
    if (fault("exits-begun")) return 9;
    handoff_readiness ready = {.size = sizeof ready, .flags = fault("unhealthy") ? HANDOFF_READY_UNHEALTHY : 0, .detail = BUILD};
    if (handoff_announce_ready(h, &ready, -1) < 0) return fail("ready");
    say("serves");
    if (fault("exits-committed")) _exit(9);
    loop();
}
