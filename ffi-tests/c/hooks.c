/* hooks.c SCENARIO REPORT - a daemon without data, whose hooks misbehave; what is not as promised goes to REPORT. */
#define _GNU_SOURCE
#include "scenario.h"
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

static int resumed, destroyed;
static uint64_t drain_id, seal_id;
static pthread_t owner;

static void destroy(void *user) { *(int *)user += 1; }

static void check_event(handoff *handle, const handoff_event *e, uint32_t kind, void *user) {
    CHECK(handle == h && user == &destroyed);
    IS(e->size, 40);
    IS(e->kind, kind);
    IS(e->flags, 0);
    CHECK(e->id != 0 && e->handoff_id != 0 && e->cancel_fd >= 0);
    CHECK(pthread_equal(pthread_self(), owner));
}

static void *answer_elsewhere(void *event) {
    IS(handoff_done(h, ((const handoff_event *)event)->id), HANDOFF_OK);
    return NULL;
}

static void on_drain(handoff *handle, const handoff_event *e, void *user) {
    char text[256];
    int status, left_ms;
    check_event(handle, e, HANDOFF_EVENT_DRAIN, user);
    if (is("silent")) return;
    drain_id = e->id;
    IS(handoff_phase(h), HANDOFF_PHASE_DRAINING);
    left_ms = handoff_remaining_ms(h, e->id);
    CHECK(left_ms > 0 && left_ms < INT_MAX);
    IS(handoff_remaining_ms(h, e->id + 1), 0);
    IS(handoff_progress(h, e->id, 1, 2), HANDOFF_OK);
    /* [owner] calls from inside a hook */
    handoff_event event;
    IS(handoff_serve(h), HANDOFF_EBUSY);
    IS(handoff_dispatch(h, &event, sizeof event), HANDOFF_EBUSY);
    IS(handoff_on_drain(h, on_drain, &destroyed, destroy), HANDOFF_EBUSY);
    IS(destroyed, 1); /* its own; not that of the hook that runs */
    IS(handoff_wait_for_begin(h, 0), HANDOFF_EBUSY);
    IS(handoff_sealed(h, e->id, NULL, 0), HANDOFF_ESTATE); /* a drain is not answered with sealed */
    IS(handoff_put_state(h, "k", "v", 1), HANDOFF_OK);
    IS(handoff_take_listener(h, NULL, 0), HANDOFF_ENOTGIVEN);
    if (is("fork")) { /* the child comes back from the hook, too */
        pid_t child = fork();
        if (child == 0) {
            IS(handoff_done(h, e->id), HANDOFF_EFORKED);
            handoff_free(h);
            return;
        }
        waitpid(child, &status, 0);
        IS(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 44);
    }
    if (is("free")) {
        handoff_free(h);
        handoff_free(h); /* a second one is harmless until serve has returned */
        IS(handoff_done(h, e->id), HANDOFF_ESTATE);
        IS(handoff_remaining_ms(h, e->id), HANDOFF_ESTATE);
        return;
    }
    if (is("fails")) {
        IS(handoff_failed(h, e->id, "told to fail"), HANDOFF_OK);
        IS(handoff_failed(h, e->id, "again"), HANDOFF_ESTALE);
        return;
    }
    pthread_t other; /* any thread may answer */
    pthread_create(&other, NULL, answer_elsewhere, (void *)(uintptr_t)e);
    pthread_join(other, NULL);
    IS(handoff_done(h, e->id), HANDOFF_ESTALE); /* answered */
    IS(handoff_failed(h, e->id, "too late"), HANDOFF_ESTALE);
    IS(handoff_progress(h, e->id, 2, 2), HANDOFF_ESTALE);
    IS(handoff_remaining_ms(h, e->id), 0);
    CHECK(strstr(handoff_errmsg(h, text, sizeof text), "over"));
}

static void *leave_the_fence(void *unused) {
    (void)unused;
    poll(NULL, 0, 50);
    IS(handoff_write_end(h), HANDOFF_OK);
    return NULL;
}

static void on_seal(handoff *handle, const handoff_event *e, void *user) {
    uint64_t revisions[2] = {3, 4};
    check_event(handle, e, HANDOFF_EVENT_SEAL, user);
    seal_id = e->id;
    IS(handoff_done(h, drain_id), HANDOFF_ESTALE);
    IS(handoff_done(h, e->id), HANDOFF_ESTATE); /* a seal is not answered with done */
    IS(handoff_sealed(h, e->id, revisions, 1u << 20), HANDOFF_ETOOBIG);
    IS(handoff_write_begin(h), HANDOFF_OK); /* a writer that is still inside: sealed waits for it */
    pthread_t writer;
    pthread_create(&writer, NULL, leave_the_fence, NULL);
    IS(handoff_sealed(h, e->id, revisions, 2), HANDOFF_OK);
    pthread_join(writer, NULL);
    IS(handoff_sealed(h, e->id, revisions, 2), HANDOFF_ESTALE);
    IS(handoff_write_begin(h), HANDOFF_ESEALED);
    int phase = handoff_phase(h); /* the helper may have heard of the commit by now */
    CHECK(phase == HANDOFF_PHASE_SEALED || phase == HANDOFF_PHASE_REPLACED);
}

static void on_resume(handoff *handle, const handoff_event *e, void *user) {
    check_event(handle, e, HANDOFF_EVENT_RESUME, user);
    resumed = 1;
    IS(handoff_remaining_ms(h, e->id), INT_MAX);
    IS(handoff_done(h, e->id), HANDOFF_OK);
}

/* ---- what has no answer ---- */
static void told(const handoff_event *e, const char *what) {
    CHECK(e->id == 0 && e->flags == 0 && e->cancel_fd == -1 && e->handoff_id != 0);
    IS(handoff_done(h, e->id), HANDOFF_ESTALE);
    fprintf(stderr, "%s is %s\n", scenario, what);
}

static void on_parked(handoff *handle, const handoff_event *e, void *user) {
    CHECK(handle == h && user == &destroyed);
    IS(e->kind, HANDOFF_EVENT_PARKED);
    IS(handoff_phase(h), HANDOFF_PHASE_SEALED);
    IS(handoff_write_begin(h), HANDOFF_ESEALED);
    told(e, "parked, as its hook says");
}

static void on_confirmed(handoff *handle, const handoff_event *e, void *user) {
    CHECK(handle == h && user == &destroyed);
    IS(e->kind, HANDOFF_EVENT_CONFIRMED);
    IS(handoff_phase(h), HANDOFF_PHASE_SERVING);
    told(e, "confirmed, as its hook says");
}

/* ---- the log ---- */
static int lines, inside, logged_prepare, freed_log;

static void on_log(void *user, int32_t level, const char *target, const char *text) {
    CHECK(user == &freed_log);
    CHECK(level >= HANDOFF_LOG_ERROR && level <= HANDOFF_LOG_TRACE);
    CHECK(strcmp(target, "handoff") == 0 && text[0]);
    char thread[16];
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    CHECK(strcmp(thread, "handoff") != 0); /* on a thread that calls, never the helper */
    CHECK(inside++ == 0);                         /* one at a time */
    lines++;
    if (h && strstr(text, "prepare")) {
        logged_prepare = 1;
        IS(handoff_warmed(h), HANDOFF_EBUSY); /* as from a hook */
        IS(handoff_remaining_ms(h, UINT64_MAX), 0);
    }
    inside--;
}

static void on_event(const handoff_event *e) {
    switch (e->kind) {
    case HANDOFF_EVENT_DRAIN: IS(handoff_done(h, e->id), HANDOFF_OK); break;
    case HANDOFF_EVENT_SEAL: IS(handoff_sealed(h, e->id, NULL, 0), HANDOFF_OK); break;
    case HANDOFF_EVENT_RESUME: IS(handoff_done(h, e->id), HANDOFF_OK); break;
    case HANDOFF_EVENT_PARKED: told(e, "parked"); break;
    case HANDOFF_EVENT_CONFIRMED: told(e, "confirmed"); break;
    }
}

int main(int argc, char **argv) {
    char err[512];
    if (argc != 3 || !freopen(argv[2], "a", stderr)) return 2;
    setvbuf(stderr, NULL, _IOLBF, 0);
    scenario = argv[1];
    owner = pthread_self();
    handoff_config *c = handoff_config_new();
    IS(handoff_set_log(c, on_log, &freed_log, destroy), HANDOFF_OK);
    int role = handoff_detect_role(c, &h, err, sizeof err);
    handoff_config_free(c);
    if (role < 0) return fprintf(stderr, "detect_role: %s\n", err), 3;
    signal(SIGTERM, on_sigterm);
    if (is("successor")) { /* commits, unless the incumbent sealed what it does not have */
        uint64_t revisions[2] = {3, 4};
        handoff_readiness r = {.size = sizeof r, .revisions = revisions, .revision_count = 2};
        IS(role, HANDOFF_SUCCESSOR);
        int begun = handoff_wait_for_begin(h, -1);
        if (begun != HANDOFF_OK) return finish(begun == HANDOFF_EABORTED ? 0 : 4);
        if (argv[2][0] && getenv("NO_REVISIONS")) r.revision_count = 0;
        IS(handoff_announce_ready(h, &r, -1), HANDOFF_OK);
        if (getenv("HOOKED")) {
            IS(handoff_on_confirmed(h, on_confirmed, &destroyed, destroy), HANDOFF_OK);
            IS(handoff_serve(h), HANDOFF_STOPPED);
        } else {
            IS(by_poll(on_event), HANDOFF_STOPPED);
        }
        handoff_free(h);
        return finish(0);
    }
    IS(role, HANDOFF_COLD_START);
    if (!is("none") && !is("poll")) {
        IS(handoff_on_drain(h, on_drain, &destroyed, destroy), HANDOFF_OK);
        IS(handoff_on_seal(h, on_seal, &destroyed, destroy), HANDOFF_OK);
        IS(handoff_on_resume(h, on_resume, &destroyed, destroy), HANDOFF_OK);
        IS(handoff_on_parked(h, on_parked, &destroyed, destroy), HANDOFF_OK);
    }
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    IS(handoff_announce_ready(h, NULL, -1), HANDOFF_OK);
    if (is("poll")) {
        IS(by_poll(on_event), HANDOFF_REPLACED);
        return finish(0);
    }
    pid_t self = getpid();
    int end = handoff_serve(h);
    if (getpid() != self) { /* the child that was forked in a hook */
        IS(end, HANDOFF_ESTATE); /* it has freed its copy */
        finish(44);
    }
    if (is("free")) {
        IS(end, HANDOFF_ESTATE);
        IS(destroyed, 5); /* four hooks, and the one that was refused */
        IS(freed_log, 1);
        return finish(0);
    }
    if (is("silent") || is("fails")) {
        IS(end, HANDOFF_STOPPED);
        IS(resumed, 1);
    } else if (is("none")) {
        IS(end, HANDOFF_ERESUME); /* nobody resumes without a hook */
    } else {
        IS(end, HANDOFF_REPLACED);
        IS(handoff_sealed(h, seal_id, NULL, 0), HANDOFF_ESTALE);
    }
    CHECK(logged_prepare && lines > 0);
    return finish(0);
}
