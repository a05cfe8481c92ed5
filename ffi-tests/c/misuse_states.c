/* misuse_states.c SCENARIO REPORT - each function in each state, under a supervisor: its code, exactly, and a text that
 * names function and state. "poll" and "hooks" are incumbents, "quits" and "waits" successors; what is not as promised
 * goes to REPORT, as in hooks.c. */
#define _GNU_SOURCE
#include "every.h"
#include "scenario.h"
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { NEVER = 1000 }; /* it would act, or block: that is the step to the next state */
#define ESTATE HANDOFF_ESTATE
#define ESTALE HANDOFF_ESTALE
#define EINVAL HANDOFF_EINVAL
#define ESEALED HANDOFF_ESEALED
#define NOTGIVEN HANDOFF_ENOTGIVEN
#define NONAME HANDOFF_ENONAME
#define TWICE HANDOFF_EDUPLICATE

static const char *const phases[] = {"STARTING", "BEGUN",  "SERVING",  "DRAINING",
                                     "SEALING",  "SEALED", "RESUMING", "REPLACED"};

/* With an event's id that never was. In a hook every call of class [owner] is EBUSY instead. */
static const struct {
    const char *name;
    int codes[8]; /* by phase */
} table[] = {
    {"handoff_take_listener", {NOTGIVEN, NOTGIVEN, NOTGIVEN, NOTGIVEN, NOTGIVEN, NOTGIVEN, NOTGIVEN, NOTGIVEN}},
    {"handoff_warmed", {0, 0, 0, 0, 0, 0, 0, 0}},
    {"handoff_wait_for_begin", {NEVER, 0, 0, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE}},
    {"handoff_announce_ready", {ESTATE, NEVER, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE}},
    {"handoff_on_drain", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_on_seal", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_on_resume", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_on_connections", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_serve", {ESTATE, ESTATE, NEVER, NEVER, NEVER, NEVER, NEVER, HANDOFF_REPLACED}},
    {"handoff_pollfd", {0, 0, 0, 0, 0, 0, 0, 0}},
    {"handoff_dispatch", {0, 0, 0, 0, 0, 0, 0, 1}},
    {"handoff_stop", {NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, 0}},
    {"handoff_done", {ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE}},
    {"handoff_sealed", {ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE}},
    {"handoff_failed", {ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE}},
    {"handoff_progress", {ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE, ESTALE}},
    {"handoff_phase", {0, 1, 2, 3, 4, 5, 6, 7}},
    {"handoff_remaining_ms", {0, 0, 0, 0, 0, 0, 0, 0}},
    {"handoff_write_begin", {ESEALED, 0, 0, 0, 0, ESEALED, 0, ESEALED}},
    {"handoff_write_end", {ESTATE, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE, ESTATE}},
    {"handoff_put_state", {ESTATE, ESTATE, ESTATE, 0, TWICE, ESTATE, ESTATE, ESTATE}},
    {"handoff_put_state_fd", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_get_state", {ESTATE, NONAME, NONAME, NONAME, NONAME, NONAME, NONAME, NONAME}},
    {"handoff_take_state_fd", {ESTATE, NONAME, NONAME, NONAME, NONAME, NONAME, NONAME, NONAME}},
    {"handoff_put_connection", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_next_connection", {ESTATE, ESTATE, 0, 0, 0, 0, 0, 0}},
    {"handoff_on_parked", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
    {"handoff_on_confirmed", {EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
};

static const char *report;
static int in_hook, states_seen, as_successor, quitting = 1;

/* handoff_errmsg names the call that failed, and the state. */
static void names(const char *call, int state) {
    char text[8192], end[32];
    handoff_errmsg(h, text, sizeof text);
    snprintf(end, sizeof end, ", in phase %s", phases[state]);
    size_t size = strlen(text), tail = strlen(end), head = strlen(call);
    if (strncmp(text, call, head) == 0 && text[head] == ':' && size > tail && strcmp(text + size - tail, end) == 0)
        return;
    failures++;
    fprintf(stderr, "not so: after %s in %s: %s\n", call, phases[state], text);
}

/* What the incumbent's put_state in its drain has given. */
static int given(int state, int (*call)(handoff *, uint64_t)) {
    return call == get_state || state == HANDOFF_PHASE_BEGUN ? HANDOFF_OK : NONAME; /* taken once */
}

static void everything_in(int state) {
    states_seen |= 1 << state;
    IS(sizeof table / sizeof *table, EVERY);
    for (int i = 0; i < EVERY; i++) {
        CHECK(strcmp(table[i].name, every[i].name) == 0);
        int expected = table[i].codes[state];
        if (in_hook && every[i].class == OWNER) expected = HANDOFF_EBUSY;
        if (as_successor && expected == NONAME) expected = given(state, every[i].call);
        /* [owner] calls carry a successor on from STARTING: it says warmed by itself */
        int acts = as_successor && state == HANDOFF_PHASE_STARTING && every[i].call == warmed;
        if (expected == NEVER || acts) continue;
        int code = every[i].call(h, 1u << 30);
        if (code != expected) {
            failures++;
            fprintf(stderr, "not so: %s in %s is %d, not %d\n", every[i].name, phases[state], code, expected);
        }
        if (code < 0 && every[i].class != QUIET) names(every[i].name, state);
    }
    CHECK(handoff_listener_name(h, 0) == NULL);
}

/* The wrong answer to an event changes nothing; the right one counts once. */
static void answered(uint64_t id, int state, int seal) {
    uint64_t revision = 5;
    char *huge = malloc((1 << 20) + 1);
    memset(huge, 0xfe, 1 << 20);
    huge[1 << 20] = 0;
    everything_in(state);
    IS(handoff_progress(h, id, UINT64_MAX, 0), HANDOFF_OK);
    CHECK(handoff_remaining_ms(h, id) > 0);
    IS(seal ? handoff_done(h, id) : handoff_sealed(h, id, &revision, 1), HANDOFF_ESTATE);
    names(seal ? "handoff_done" : "handoff_sealed", state);
    if (state == HANDOFF_PHASE_DRAINING && quitting == 1) {
        quitting++; /* the first drain fails */
        IS(handoff_failed(h, id, huge), HANDOFF_OK);
    } else {
        IS(seal ? handoff_sealed(h, id, &revision, 1) : handoff_done(h, id), HANDOFF_OK);
    }
    free(huge);
    IS(handoff_done(h, id), HANDOFF_ESTALE);
    IS(handoff_sealed(h, id, &revision, 1), HANDOFF_ESTALE);
    IS(handoff_failed(h, id, NULL), HANDOFF_ESTALE);
    IS(handoff_progress(h, id, 1, 1), HANDOFF_ESTALE);
    IS(handoff_remaining_ms(h, id), 0);
}

/* A successor that has begun waits for this file: until then nothing changes. */
static void go(void) {
    char path[600];
    snprintf(path, sizeof path, "%s.go", report);
    FILE *file = fopen(path, "w");
    CHECK(file && fclose(file) == 0);
}

static void wait_for_go(void) {
    char path[600];
    struct stat found;
    snprintf(path, sizeof path, "%s.go", report);
    for (int i = 0; stat(path, &found) != 0; i++) {
        if (i > 12000) _exit(9); /* a minute */
        poll(NULL, 0, 5);
    }
    unlink(path);
}

static void on_event(handoff *handle, const handoff_event *e, void *user) {
    (void)handle, (void)user;
    in_hook = !is("poll");
    switch (e->kind) {
    case HANDOFF_EVENT_DRAIN: answered(e->id, HANDOFF_PHASE_DRAINING, 0); break;
    case HANDOFF_EVENT_SEAL:
        answered(e->id, HANDOFF_PHASE_SEALING, 1);
        everything_in(HANDOFF_PHASE_SEALED);
        go();
        break;
    case HANDOFF_EVENT_RESUME: answered(e->id, HANDOFF_PHASE_RESUMING, 0); break;
    default: CHECK(!"an event");
    }
    in_hook = 0;
}

static void on_polled(const handoff_event *e) {
    on_event(h, e, NULL);
    if (e->kind == HANDOFF_EVENT_RESUME) everything_in(HANDOFF_PHASE_SERVING);
}

static int incumbent(void) {
    everything_in(HANDOFF_PHASE_STARTING);
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    everything_in(HANDOFF_PHASE_BEGUN);
    IS(handoff_announce_ready(h, NULL, -1), HANDOFF_OK);
    everything_in(HANDOFF_PHASE_SERVING);
    if (is("hooks")) {
        IS(handoff_on_drain(h, on_event, NULL, NULL), HANDOFF_OK);
        IS(handoff_on_seal(h, on_event, NULL, NULL), HANDOFF_OK);
        IS(handoff_on_resume(h, on_event, NULL, NULL), HANDOFF_OK);
        IS(handoff_serve(h), HANDOFF_REPLACED);
    } else {
        IS(by_poll(on_polled), HANDOFF_REPLACED);
    }
    everything_in(HANDOFF_PHASE_REPLACED);
    IS(states_seen, 0xff); /* each of them */
    return finish(0);
}

static int successor(void) {
    uint64_t revision = 5;
    handoff_readiness r = {.size = sizeof r, .revisions = &revision, .revision_count = 1};
    as_successor = 1;
    everything_in(HANDOFF_PHASE_STARTING);
    IS(handoff_warmed(h), HANDOFF_OK);
    int begun = handoff_wait_for_begin(h, -1);
    if (begun == HANDOFF_EABORTED) {
        names("handoff_wait_for_begin", HANDOFF_PHASE_REPLACED);
        IS(handoff_wait_for_begin(h, 0), HANDOFF_EABORTED);
        IS(handoff_announce_ready(h, NULL, 0), HANDOFF_EABORTED);
        IS(handoff_serve(h), HANDOFF_EABORTED);
        IS(handoff_write_begin(h), HANDOFF_ESEALED);
        return finish(0);
    }
    IS(begun, HANDOFF_OK);
    wait_for_go();
    if (is("quits")) return finish(0);
    everything_in(HANDOFF_PHASE_BEGUN);
    IS(handoff_announce_ready(h, &r, -1), HANDOFF_OK);
    everything_in(HANDOFF_PHASE_SERVING); /* the first handoff_dispatch is in it */
    everything_in(HANDOFF_PHASE_SERVING);
    fprintf(stderr, "the successor has looked\n"); /* from now on it may be stopped */
    IS(by_poll(on_polled), HANDOFF_STOPPED);
    handoff_free(h);
    return finish(0);
}

int main(int argc, char **argv) {
    char err[512];
    if (argc != 3 || !freopen(argv[2], "a", stderr)) return 2;
    setvbuf(stderr, NULL, _IOLBF, 0);
    scenario = argv[1], report = argv[2];
    int role = handoff_detect_role(NULL, &h, err, sizeof err);
    if (role < 0) return fprintf(stderr, "detect_role: %s\n", err), 3;
    signal(SIGTERM, on_sigterm);
    return role == HANDOFF_SUCCESSOR ? successor() : incumbent();
}
