/* scenario.h - a daemon that plays the scenario of its first argument, and tells what is not as promised on its stderr. */
#ifndef SCENARIO_H
#define SCENARIO_H
#include "check.h"
#include <handoff.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static handoff *h;
static const char *scenario;

static int is(const char *name) { return strcmp(scenario, name) == 0; }

static void on_sigterm(int signal) { (void)signal, handoff_stop(h); }

static int finish(int code) {
    fprintf(stderr, "%s: %d, %d failures\n", scenario, code, (int)failures);
    _exit(failures ? 99 : code);
}

/* Serves until it is replaced or stopped, or a call fails: that is the answer. on_event hears of everything before. */
static int by_poll(void (*on_event)(const handoff_event *)) {
    struct pollfd p = {.fd = handoff_pollfd(h), .events = POLLIN};
    handoff_event e;
    for (;;) {
        poll(&p, 1, -1);
        int got = handoff_dispatch(h, &e, sizeof e);
        if (got < 0) return got;
        if (got == 0) continue;
        if (e.kind == HANDOFF_EVENT_REPLACED) return HANDOFF_REPLACED;
        if (e.kind == HANDOFF_EVENT_STOPPED) return HANDOFF_STOPPED;
        on_event(&e);
    }
}
#endif
