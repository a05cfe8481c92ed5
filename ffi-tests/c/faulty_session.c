/* faulty_session.c - one of the examples that move connections or state, -DPROGRAM="its path", with one fault.
 *
 * The example's own source stands as it is: the faults sit in the library calls, which are replaced below.
 * KV_FAULT names one:
 *
 *   unhealthy   is ready, and says that it is not well
 *   crash       dies of SIGKILL when it would say that it is ready: it has everything that the incumbent gave
 *   hang        says "has everything" on standard error then, and never comes back
 *   fleeting    stops itself (SIGSTOP) then; commits when it is continued, serves one round, and dies of SIGKILL before the
 *               library has said that it serves
 *   stuff       gives every connection of the chat with a message, "x", that was read and not handled
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
    if (is_fault("fleeting")) raise(SIGSTOP);
    return handoff_announce_ready(h, is_fault("unhealthy") ? &unhealthy : r, timeout_ms);
}

static int faulty_dispatch(handoff *h, handoff_event *event, size_t size) {
    if (is_fault("fleeting")) raise(SIGKILL);
    return handoff_dispatch(h, event, size);
}

/* After six numbers come names and bytes, each with its size before it: nick, room, and what was read. */
static size_t stuff(unsigned char *state, size_t size) {
    static const unsigned char frame[] = {0x81, 0x81, 0, 0, 0, 0, 'x'};
    size_t at = 48;
    for (int name = 0; name < 2; name++) at += 8 + state[at];
    memmove(state + at + 8 + sizeof frame, state + at + 8, size - at - 8);
    memcpy(state + at + 8, frame, state[at] = sizeof frame);
    return size + sizeof frame;
}

static int faulty_put_connection(handoff *h, int fd, const char *name, const void *state, size_t size) {
    static size_t count;
    unsigned char bad[60 * 1024];
    memcpy(bad, state, size);
    if (is_fault("stuff")) size = stuff(bad, size);
    size_t kind = is_fault("garble") ? count++ % 5 : 0;
    if (kind == 1) size = count < size ? count : size - 1;
    if (kind == 2) bad[0] ^= 0x80;
    if (kind == 3) memset(bad + size - 8, 0xff, 8); /* its last number is a size */
    if (kind == 4) bad[size++] = 0;
    return handoff_put_connection(h, fd, name, bad, size);
}

#define handoff_announce_ready faulty_announce_ready
#define handoff_dispatch faulty_dispatch
#define handoff_put_connection faulty_put_connection
#include PROGRAM
