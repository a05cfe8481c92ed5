/* What cgo can not say: a callback with a number instead of a pointer, and structures that point to other memory. */
#ifndef HANDOFF_GO_SHIM_H
#define HANDOFF_GO_SHIM_H

#include <handoff.h>
#include <poll.h>

/* Log lines go to goHandoffLog, with this number of a cgo.Handle. */
int handoff_go_set_log(handoff_config *c, uintptr_t sink);

static inline int handoff_go_announce(handoff *h, uint32_t flags, const uint64_t *revisions, size_t count,
                                      const char *detail) {
    handoff_readiness r = {.size = sizeof r, .flags = flags, .revisions = revisions, .revision_count = count};
    r.detail = detail;
    return handoff_announce_ready(h, &r, 0);
}

/* A pointer to bytes, since cgo looks at all of what a void pointer points into, and refuses it if there are pointers. */
static inline int handoff_go_put_connection(handoff *h, int fd, const char *name, const uint8_t *state, size_t size) {
    return handoff_put_connection(h, fd, name, state, size);
}

static inline int handoff_go_put_state(handoff *h, const char *key, const uint8_t *data, size_t size) {
    return handoff_put_state(h, key, data, size);
}

static inline int handoff_go_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) != 0; /* an error, too: whoever waits looks again */
}

#endif
