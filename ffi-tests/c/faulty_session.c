/* faulty_session.c - one of the examples that move connections or state, -DPROGRAM="its path", with one fault.
 *
 * The example's own source stands as it is: the faults sit in the library calls, which are replaced below.
 * KV_FAULT names one:
 *
 *   unhealthy   is ready, and says that it is not well
 *   crash       dies of SIGKILL when it would say that it is ready: it has everything that the incumbent gave
 *   hang        says "has everything" on standard error then, and never comes back
 *   garble      gives every fifth connection with a state that is right, and the others with four kinds of nonsense
 */
#define _GNU_SOURCE
#include <handoff.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_fault(const char *name) {
    const char *fault = getenv("KV_FAULT");
    return fault && strcmp(fault, name) == 0;
}

static int faulty_announce_ready(handoff *h, const handoff_readiness *r, int timeout_ms) {
    handoff_readiness unhealthy = {.size = sizeof unhealthy, .flags = HANDOFF_READY_UNHEALTHY, .detail = "told to be unhealthy"};
    if (handoff_phase(h) != HANDOFF_PHASE_BEGUN) abort();
    if (is_fault("crash")) raise(SIGKILL);
    if (is_fault("hang")) fprintf(stderr, "has everything\n");
    while (is_fault("hang")) pause();
    return handoff_announce_ready(h, is_fault("unhealthy") ? &unhealthy : r, timeout_ms);
}

static int faulty_put_connection(handoff *h, int fd, const char *name, const void *state, size_t size) {
    static size_t count;
    unsigned char bad[60 * 1024];
    memcpy(bad, state, size);
    size_t kind = is_fault("garble") ? count++ % 5 : 0;
    if (kind == 1) size = count < size ? count : size - 1;
    if (kind == 2) bad[0] ^= 0x80;
    if (kind == 3) memset(bad + size - 8, 0xff, 8); /* its last number is a size */
    if (kind == 4) bad[size++] = 0;
    return handoff_put_connection(h, fd, name, bad, size);
}

#define handoff_announce_ready faulty_announce_ready
#define handoff_put_connection faulty_put_connection
#include PROGRAM
