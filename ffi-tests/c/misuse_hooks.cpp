/* misuse_hooks.cpp SCENARIO REPORT - callbacks that do what they must not: leave by an exception or by the end of their
 * thread, answer late or for somebody else, leave a child behind. What is not as promised goes to REPORT, as in hooks.c. */
#include "check.h"
#include <handoff.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

static handoff *h;
static std::string scenario;
static int resumed;
static pid_t child;

static bool is(const char *name) { return scenario == name; }

/* Its destructor runs if the frame is unwound. */
struct frame {
    ~frame() { fprintf(stderr, "a frame of the application was unwound\n"); }
};

static void leave() {
    frame here;
    if (is("exits")) pthread_exit(nullptr);
    throw 42;
}

/* Late: the deadline shows in all three ways, and the answer does nothing. */
static void too_late(const handoff_event *e) {
    struct pollfd p = {e->cancel_fd, POLLIN, 0};
    CHECK(poll(&p, 1, 60000) == 1);
    IS(handoff_remaining_ms(h, e->id), 0);
    IS(handoff_progress(h, e->id, 1, 2), HANDOFF_ESTALE);
    IS(handoff_done(h, e->id), HANDOFF_ESTALE);
    IS(handoff_failed(h, e->id, "late"), HANDOFF_ESTALE);
}

static void on_drain(handoff *, const handoff_event *e, void *) {
    if (is("throws") || is("exits")) leave();
    if (is("late")) return too_late(e);
    for (uint64_t other = 0; other < 64; other++)
        if (other != e->id) IS(handoff_done(h, other), HANDOFF_ESTALE);
    if (is("child") && (child = fork()) == 0) {
        for (;;) pause(); /* neither execs nor exits: it may still write */
    }
    IS(handoff_done(h, e->id), HANDOFF_OK);
}

static void on_seal(handoff *, const handoff_event *e, void *) {
    char text[512];
    if (is("throws-sealed")) {
        IS(handoff_sealed(h, e->id, nullptr, 0), HANDOFF_OK);
        throw std::string("after the answer");
    }
    /* At its deadline; the supervisor, which has the same one, may cancel it first. */
    int code = handoff_sealed(h, e->id, nullptr, 0);
    handoff_errmsg(h, text, sizeof text);
    if (code != HANDOFF_ESTALE) IS(code, HANDOFF_ESTATE);
    if (code == HANDOFF_ESTATE && !strstr(text, ("process " + std::to_string(child)).c_str()))
        fprintf(stderr, "not so: process %d is named: %s\n", static_cast<int>(child), text);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

static void on_resume(handoff *, const handoff_event *e, void *) {
    resumed = 1;
    IS(handoff_write_begin(h), HANDOFF_OK);
    IS(handoff_write_end(h), HANDOFF_OK);
    IS(handoff_done(h, e->id), HANDOFF_OK);
}

static void on_log(void *, int32_t, const char *, const char *text) {
    if (is("throws-in-log") && strstr(text, "prepare")) leave();
}

static void destroy(void *) {
    if (is("throws-in-destroy")) leave();
}

static void on_sigterm(int) { handoff_stop(h); }

int main(int argc, char **argv) {
    char err[512];
    if (argc != 3 || !freopen(argv[2], "a", stderr)) return 2;
    setvbuf(stderr, nullptr, _IOLBF, 0);
    scenario = argv[1];
    handoff_config *c = handoff_config_new();
    IS(handoff_set_log(c, on_log, nullptr, destroy), HANDOFF_OK);
    if (handoff_detect_role(c, &h, err, sizeof err) < 0) return fprintf(stderr, "detect_role: %s\n", err), 3;
    handoff_config_free(c);
    signal(SIGTERM, on_sigterm);
    IS(handoff_on_drain(h, on_drain, nullptr, destroy), HANDOFF_OK);
    if (is("throws-in-destroy")) handoff_on_drain(h, on_drain, nullptr, nullptr);
    IS(handoff_on_seal(h, on_seal, nullptr, nullptr), HANDOFF_OK);
    IS(handoff_on_resume(h, on_resume, nullptr, nullptr), HANDOFF_OK);
    int begun = handoff_wait_for_begin(h, -1);
    if (begun == HANDOFF_OK) begun = handoff_announce_ready(h, nullptr, -1);
    if (begun == HANDOFF_OK) {
        IS(handoff_serve(h), HANDOFF_STOPPED);
        IS(resumed, is("late") || is("child"));
    }
    handoff_free(h);
    fprintf(stderr, "%s: %d, %d failures\n", scenario.c_str(), begun, static_cast<int>(failures));
    _exit(failures ? 99 : 0);
}
