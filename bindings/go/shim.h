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

static inline int handoff_go_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) != 0; /* an error, too: whoever waits looks again */
}

#endif
