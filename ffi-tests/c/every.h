/* every.h - each call on a handle, once, with arguments that do no harm by themselves. */
#ifndef EVERY_H
#define EVERY_H
#include "check.h"
#include <handoff.h>
#include <string.h>
#include <unistd.h>

typedef enum { OWNER, EVENT, ANY, QUIET } class; /* QUIET: [any] or [signal], and leaves handoff_errmsg as it is */

typedef struct {
    const char *name;
    class class;
    int (*call)(handoff *h, uint64_t id);
} every_call;

static int and_close(int fd) {
    if (fd < 0) return fd;
    close(fd);
    return 0;
}

static int take_listener(handoff *h, uint64_t id) { return (void)id, and_close(handoff_take_listener(h, NULL, 0)); }
static int warmed(handoff *h, uint64_t id) { return (void)id, handoff_warmed(h); }
static int wait_for_begin(handoff *h, uint64_t id) { return (void)id, handoff_wait_for_begin(h, 0); }
static int announce_ready(handoff *h, uint64_t id) { return (void)id, handoff_announce_ready(h, NULL, 0); }
static int on_drain_null(handoff *h, uint64_t id) { return (void)id, handoff_on_drain(h, NULL, NULL, NULL); }
static int on_seal_null(handoff *h, uint64_t id) { return (void)id, handoff_on_seal(h, NULL, NULL, NULL); }
static int on_resume_null(handoff *h, uint64_t id) { return (void)id, handoff_on_resume(h, NULL, NULL, NULL); }
static int on_parked_null(handoff *h, uint64_t id) { return (void)id, handoff_on_parked(h, NULL, NULL, NULL); }
static int on_confirmed_null(handoff *h, uint64_t id) { return (void)id, handoff_on_confirmed(h, NULL, NULL, NULL); }
static int on_connections_null(handoff *h, uint64_t id) { return (void)id, handoff_on_connections(h, NULL, NULL, NULL); }
static int serve(handoff *h, uint64_t id) { return (void)id, handoff_serve(h); }
static int pollfd_of(handoff *h, uint64_t id) {
    int fd = handoff_pollfd(h);
    return (void)id, fd < 0 ? fd : 0;
}
static int dispatch(handoff *h, uint64_t id) {
    handoff_event event;
    return (void)id, handoff_dispatch(h, &event, sizeof event);
}
static int stop(handoff *h, uint64_t id) { return (void)id, handoff_stop(h); }
static int done(handoff *h, uint64_t id) { return handoff_done(h, id); }
static int sealed(handoff *h, uint64_t id) { return handoff_sealed(h, id, NULL, 0); }
static int failed(handoff *h, uint64_t id) { return handoff_failed(h, id, "x"); }
static int progress(handoff *h, uint64_t id) { return handoff_progress(h, id, 1, 2); }
static int phase(handoff *h, uint64_t id) { return (void)id, handoff_phase(h); }
static int remaining_ms(handoff *h, uint64_t id) { return handoff_remaining_ms(h, id); }
static int write_begin(handoff *h, uint64_t id) {
    int code = handoff_write_begin(h);
    if (code == HANDOFF_OK) code = handoff_write_end(h);
    return (void)id, code;
}
static int write_end(handoff *h, uint64_t id) { return (void)id, handoff_write_end(h); }
static int put_state(handoff *h, uint64_t id) { return (void)id, handoff_put_state(h, "k", "v\0w", 3); }
static int put_state_fd(handoff *h, uint64_t id) { return (void)id, handoff_put_state_fd(h, "k", -1); }
static int get_state(handoff *h, uint64_t id) {
    const void *data;
    size_t size;
    return (void)id, handoff_get_state(h, "k", &data, &size);
}
static int take_state_fd(handoff *h, uint64_t id) { return (void)id, and_close(handoff_take_state_fd(h, "k")); }
static int put_connection(handoff *h, uint64_t id) { return (void)id, handoff_put_connection(h, -1, "k", "v", 1); }
static int next_connection(handoff *h, uint64_t id) {
    handoff_connection connection;
    return (void)id, handoff_next_connection(h, &connection, sizeof connection);
}

static const every_call every[] = {
    {"handoff_take_listener", ANY, take_listener},   {"handoff_warmed", OWNER, warmed},
    {"handoff_wait_for_begin", OWNER, wait_for_begin}, {"handoff_announce_ready", OWNER, announce_ready},
    {"handoff_on_drain", OWNER, on_drain_null},      {"handoff_on_seal", OWNER, on_seal_null},
    {"handoff_on_resume", OWNER, on_resume_null},    {"handoff_on_connections", OWNER, on_connections_null},
    {"handoff_serve", OWNER, serve},
    {"handoff_pollfd", QUIET, pollfd_of},            {"handoff_dispatch", OWNER, dispatch},
    {"handoff_stop", QUIET, stop},                   {"handoff_done", EVENT, done},
    {"handoff_sealed", EVENT, sealed},               {"handoff_failed", EVENT, failed},
    {"handoff_progress", EVENT, progress},           {"handoff_phase", QUIET, phase},
    {"handoff_remaining_ms", ANY, remaining_ms},     {"handoff_write_begin", QUIET, write_begin},
    {"handoff_write_end", QUIET, write_end},         {"handoff_put_state", EVENT, put_state},
    {"handoff_put_state_fd", EVENT, put_state_fd},   {"handoff_get_state", OWNER, get_state},
    {"handoff_take_state_fd", OWNER, take_state_fd}, {"handoff_put_connection", EVENT, put_connection},
    {"handoff_next_connection", ANY, next_connection}, {"handoff_on_parked", OWNER, on_parked_null},
    {"handoff_on_confirmed", OWNER, on_confirmed_null},
};
enum { EVERY = sizeof every / sizeof *every };

/* Every call on a handle that cannot be used. */
static inline void refused(handoff *h, int code) {
    for (int i = 0; i < EVERY; i++) {
        int got = every[i].call(h, 1);
        if (got != code) {
            failures++;
            fprintf(stderr, "%s:%d: not so: %s is %d, not %d\n", __FILE__, __LINE__, every[i].name, got, code);
        }
    }
    CHECK(handoff_listener_name(h, 0) == NULL);
}
#endif
