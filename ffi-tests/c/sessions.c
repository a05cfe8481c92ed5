/* sessions.c - a server of lines whose sessions outlive its process. Each client numbers its lines from 1, and the server
 * numbers its own: "n echo" for each line, and "n 0" without being asked. So a byte that is lost or seen twice shows, in both
 * directions. What is read and is no whole line yet, and what is not written yet, is the state of a connection.
 * SESSIONS_FAULT: unhealthy, dies or hangs (with everything received), takes-none; dies-giving, dies-taking: in the middle.
 * SESSIONS_HELPER=0: without the helper thread. SESSIONS_HOOK: connections by a hook. SESSIONS_MODE=overlap; there SESSIONS_GIVE names a file: until it exists the
 * last drain serves on, and gives nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <handoff.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_MAX = 256, OUTPUT_MAX = 8192, TICK_MS = 2 };

typedef struct session {
    uint64_t heard, said; /* the last number in each direction */
    size_t input_size, output_size;
    char input[INPUT_MAX], output[OUTPUT_MAX];
    int fd;
    struct session *next;
} session;

static handoff *h;
static session *sessions;
static int epoll_fd, listener = -1, overlap;
static uint64_t leaving; /* the event, while the last drain of overlap mode is open */

static int fault(const char *name) {
    const char *wanted = getenv("SESSIONS_FAULT");
    return wanted && strcmp(wanted, name) == 0;
}

static void die(const char *what) {
    char why[512];
    fprintf(stderr, "%s: %s\n", what, h ? handoff_errmsg(h, why, sizeof why) : "no handle");
    exit(1);
}

static void watch(int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

static session *add(int fd) {
    session *s = calloc(1, sizeof *s);
    if (!s) die("calloc");
    s->fd = fd, s->next = sessions, sessions = s;
    watch(fd, s);
    return s;
}

static void drop(session *s) {
    session **at = &sessions;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    close(s->fd);
    free(s);
}

static void say(session *s, uint64_t echo) {
    if (s->output_size + 64 > OUTPUT_MAX) return;
    s->output_size += (size_t)sprintf(s->output + s->output_size, "%llu %llu\n", (unsigned long long)++s->said,
                                      (unsigned long long)echo);
}

/* In odd pieces, so that there is often something left. */
static void flush(session *s) {
    size_t piece = s->output_size > 100 ? s->output_size - s->output_size % 7 : s->output_size;
    ssize_t sent = piece ? send(s->fd, s->output, piece, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (sent <= 0) return;
    s->output_size -= (size_t)sent;
    memmove(s->output, s->output + sent, s->output_size);
}

/* Zero once the client is gone. */
static int hear(session *s) {
    /* No line is understood that could not be answered. */
    if (s->output_size > OUTPUT_MAX / 2) return 1;
    ssize_t got = recv(s->fd, s->input + s->input_size, INPUT_MAX - s->input_size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (got <= 0) return 0;
    s->input_size += (size_t)got;
    char *line = s->input, *end;
    while ((end = memchr(line, '\n', s->input_size - (size_t)(line - s->input)))) {
        uint64_t number = strtoull(line, NULL, 10);
        if (number != ++s->heard) fprintf(stderr, "LOST: line %llu after %llu\n", (unsigned long long)number,
                                          (unsigned long long)s->heard - 1);
        say(s, number);
        line = end + 1;
    }
    s->input_size -= (size_t)(line - s->input);
    memmove(s->input, line, s->input_size);
    return 1;
}

static void give(void) {
    char total[32];
    int count = 0;
    for (session *s = sessions; s; s = s->next, count++)
        if (handoff_put_connection(h, s->fd, "session", s, offsetof(session, fd)) < 0) {
            char why[512];
            fprintf(stderr, "%s\n", handoff_errmsg(h, why, sizeof why));
            return; /* the handoff goes on without, or has been given up */
        }
    int size = snprintf(total, sizeof total, "%d", count);
    if (handoff_put_state(h, "total", total, (size_t)size) < 0) fprintf(stderr, "no total\n");
}

/* Overlap mode: what is given is not touched again; what can not be given is served on. */
static void give_on(void) {
    int given = 0;
    if (handoff_put_state(h, "total", "", 0) != HANDOFF_EREFUSED) fprintf(stderr, "LOST: state that nobody will read\n");
    for (session *next, *s = sessions; s; s = next) {
        next = s->next;
        if (handoff_put_connection(h, s->fd, "session", s, offsetof(session, fd)) < 0) return;
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
        drop(s);
        if (++given == 5 && fault("dies-giving")) raise(SIGKILL);
    }
}

static void take(void) {
    handoff_connection c;
    const void *total;
    size_t size;
    int got, count = 0;
    static int taken; /* with all events */
    while ((got = handoff_next_connection(h, &c, sizeof c)) == 1) {
        session *s = add(c.fd);
        memcpy(s, c.state, c.state_size);
        count++;
        if (++taken == 5 && fault("dies-taking")) raise(SIGKILL);
    }
    if (got < 0) die("next_connection");
    if (overlap) return;
    if (handoff_get_state(h, "total", &total, &size) == HANDOFF_OK && atoi(total) != count)
        fprintf(stderr, "LOST: %d of %s connections came\n", count, (const char *)total);
}

static void on_connections(handoff *handle, const handoff_event *e, void *user) {
    (void)handle, (void)user;
    if (e->kind == HANDOFF_EVENT_CONNECTIONS) take();
}

static void accept_on(int on) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener, &event);
}

static int on_event(const handoff_event *e) {
    switch (e->kind) {
    case HANDOFF_EVENT_DRAIN:
        accept_on(0);
        if (e->flags & HANDOFF_EVENT_AFTER_COMMIT) {
            leaving = e->id;
            fprintf(stderr, "%ld leaves\n", (long)getpid());
            return 1;
        }
        give();
        handoff_done(h, e->id);
        return 0;
    case HANDOFF_EVENT_CONNECTIONS:
        if (!fault("takes-none")) take();
        return 1;
    case HANDOFF_EVENT_SEAL: handoff_sealed(h, e->id, NULL, 0); return 0;
    case HANDOFF_EVENT_RESUME:
        accept_on(0);
        accept_on(1);
        handoff_done(h, e->id);
        return 1;
    case HANDOFF_EVENT_REPLACED: _exit(0);
    default: exit(0);
    }
}

/* Until it is done: what came in between is taken, and given on with the next turn. */
static void leave(void) {
    const char *start = getenv("SESSIONS_GIVE");
    if (!leaving || (start && access(start, F_OK) != 0)) return;
    give_on();
    if (sessions) return;
    int code = handoff_done(h, leaving);
    if (code == HANDOFF_ESTATE) take();
    else leaving = 0;
    if (code == HANDOFF_EREFUSED) fprintf(stderr, "done was refused\n");
}

static void loop(void) {
    int given = 0; /* from the drain on the sessions are left alone */
    watch(handoff_pollfd(h), NULL);
    for (;;) {
        struct epoll_event ready[64];
        int count = epoll_wait(epoll_fd, ready, 64, TICK_MS);
        handoff_event e;
        int got = handoff_dispatch(h, &e, sizeof e);
        if (got < 0) die("dispatch");
        if (got == 1) given = !on_event(&e);
        if (given) continue;
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr == &listener) {
                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd >= 0) add(fd);
            } else if (ready[i].data.ptr && !hear(ready[i].data.ptr)) {
                drop(ready[i].data.ptr);
            }
        }
        leave(); /* not before: it drops sessions that may be in ready */
        for (session *s = sessions; s; s = s->next) {
            if (s->said < 2 * s->heard + 50) say(s, 0); /* a client that is silent is not flooded */
            flush(s);
        }
    }
}

static void log_line(void *user, int32_t level, const char *target, const char *text) {
    (void)user, (void)target;
    if (level <= HANDOFF_LOG_WARN) fprintf(stderr, "%s\n", text);
}

static void on_term(int signal) { (void)signal, handoff_stop(h); }

int main(void) {
    char why[512];
    const char *helper = getenv("SESSIONS_HELPER"), *mode = getenv("SESSIONS_MODE");
    handoff_config *config = handoff_config_new();
    handoff_readiness r = {.size = sizeof r};
#ifdef REQUIRE_TRANSFER
    handoff_config_set_int(config, HANDOFF_OPT_TRANSFER, 1);
#endif
    handoff_set_log(config, log_line, NULL, NULL);
    overlap = mode && strcmp(mode, "overlap") == 0;
    if (overlap) handoff_config_set_int(config, HANDOFF_OPT_MODES, HANDOFF_MODE_OVERLAP);
    if (helper) handoff_config_set_int(config, HANDOFF_OPT_HELPER_THREAD, atoi(helper));
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "%s\n", why), 1;
    handoff_config_free(config);
    signal(SIGTERM, on_term);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (getenv("SESSIONS_HOOK")) handoff_on_connections(h, on_connections, NULL, NULL);
    listener = handoff_take_listener(h, "kv", 0);
    if (listener < 0 || handoff_wait_for_begin(h, -1) < 0) die("begin");
    if (fault("dies")) raise(SIGKILL);
    while (fault("hangs")) pause();
    if (fault("unhealthy")) r.flags = HANDOFF_READY_UNHEALTHY;
    if (handoff_announce_ready(h, &r, -1) < 0) die("ready");
    if (!fault("takes-none")) take();
    accept_on(1);
    loop();
}
