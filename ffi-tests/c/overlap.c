/* A daemon in overlap mode: one epoll, and no thread of its own.
 *
 * SET key value -> OK <revision>, GET key -> VALUE <value>, or NONE; any other line, and a datagram -> PONG <pid> <build>. Its
 * data is for two at once: a value is a file, put into its place by a rename, and the revision the end of a line that was
 * appended to a log. A client's connection stays until the client closes it; with OVERLAP_GIVE the last drain gives those on which more
 * than one line has come to the successor. OVERLAP_FAULT chooses what goes wrong; OVERLAP_INIT names a file that it waits for while it
 * initialises, OVERLAP_DRAIN one that its last drain waits for, OVERLAP_LOG one for what it hears. */
#define _GNU_SOURCE
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
static char input[CONNECTIONS_MAX][4096];
static size_t input_size[CONNECTIONS_MAX];
static unsigned lines[CONNECTIONS_MAX];  /* that came */
static int log_fd = -1;
static char data[256];
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
    input_size[place] = lines[place] = 0;
    open_connections--;
}

static unsigned add(int fd) {
    unsigned place = 0;
    while (place < CONNECTIONS_MAX && connections[place]) place++;
    if (place == CONNECTIONS_MAX) abort();
    connections[place] = fd + 1;
    open_connections++;
    watch(fd, place);
    return place;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) add(fd);
}

static int pong(char *reply, size_t size) { return snprintf(reply, size, "PONG %ld " BUILD "\n", (long)getpid()); }

static int set(const char *key, const char *value, char *reply, size_t size) {
    char path[600], temporary[700];
    snprintf(path, sizeof path, "%s/%s", data, key);
    snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(temporary, "we");
    if (!file || fputs(value, file) < 0 || fclose(file) || rename(temporary, path) < 0) abort();
    if (write(log_fd, ".\n", 2) != 2) abort();
    return snprintf(reply, size, "OK %lld\n", (long long)lseek(log_fd, 0, SEEK_CUR));
}

static int get(const char *key, char *reply, size_t size) {
    char path[600], value[300];
    snprintf(path, sizeof path, "%s/%s", data, key);
    FILE *file = fopen(path, "re");
    if (!file) return snprintf(reply, size, "NONE\n");
    if (!fgets(value, sizeof value, file)) abort();
    fclose(file);
    return snprintf(reply, size, "VALUE %s\n", value);
}

static int execute(const char *line, char *reply, size_t size) {
    char key[200], value[200];
    if (*data && sscanf(line, "SET %199s %199s", key, value) == 2) return set(key, value, reply, size);
    if (*data && sscanf(line, "GET %199s", key) == 1) return get(key, reply, size);
    return pong(reply, size);
}

static void serve_connection(unsigned place) {
    int fd = connections[place] - 1;
    char *line = input[place], *end;
    ssize_t got = recv(fd, line + input_size[place], sizeof input[place] - 1 - input_size[place], MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        hang_up(place);
        return;
    }
    input_size[place] += (size_t)got;
    line[input_size[place]] = 0;
    while ((end = strchr(line, '\n'))) {
        char reply[400];
        *end = 0;
        int size = execute(line, reply, sizeof reply);
        if (send(fd, reply, (size_t)size, MSG_NOSIGNAL) < 0) {
            hang_up(place);
            return;
        }
        line = end + 1;
        lines[place]++;
    }
    input_size[place] = strlen(line);
    memmove(input[place], line, input_size[place]);
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

static void take(void) {
    handoff_connection c;
    while (handoff_next_connection(h, &c, sizeof c) == 1) {
        unsigned place = add(c.fd);
        memcpy(input[place], c.state, c.state_size);
        input_size[place] = c.state_size;
        lines[place] = 2; /* it goes on to the next one, too */
    }
}

/* What can not be given is served to its end. */
static void give(void) {
    for (unsigned place = 0; place < CONNECTIONS_MAX; place++) {
        int fd = connections[place] - 1;
        if (fd < 0 || lines[place] < 2) continue;
        if (handoff_put_connection(h, fd, "client", input[place], input_size[place]) < 0) return;
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        hang_up(place);
    }
}

static void finish_drain(void) {
    if (draining && getenv("OVERLAP_GIVE")) give();
    if (!draining || open_connections > 0 || !exists("OVERLAP_DRAIN")) return;
    if (handoff_done(h, draining) == HANDOFF_ESTATE) take(); /* and gives them on */
    else draining = 0;
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
    case HANDOFF_EVENT_CONNECTIONS: take(); return 0;
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
    char why[512], log[300];
    const char *dir = getenv("HANDOFF_DATA_DIR");
    if (dir) snprintf(data, sizeof data, "%s", dir);
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
    snprintf(log, sizeof log, "%s/log", data);
    if (dir && (log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) return fail("log");
    take_listeners();
    while (!exists("OVERLAP_INIT")) usleep(1000);
    if (fault("exits-begun")) return 9;
    handoff_readiness ready = {.size = sizeof ready, .flags = fault("unhealthy") ? HANDOFF_READY_UNHEALTHY : 0, .detail = BUILD};
    if (handoff_announce_ready(h, &ready, -1) < 0) return fail("ready");
    say("serves");
    if (fault("exits-committed")) _exit(9);
    loop();
}
