/* misuse_threads.c DIR - the thread classes, fork and signal handlers, without a supervisor. */
#define _GNU_SOURCE
#include "check.h"
#include "every.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { ROUNDS = 300, THREADS = 4 };
static handoff *h;
static char dir[512], control[600];

static handoff *made(void) {
    char err[512] = "";
    handoff *made = NULL;
    handoff_config *c = handoff_config_new();
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, dir), HANDOFF_OK);
    IS(handoff_config_set_str(c, HANDOFF_OPT_CONTROL_PATH, control), HANDOFF_OK);
    IS(handoff_detect_role(c, &made, err, sizeof err), HANDOFF_COLD_START);
    handoff_config_free(c);
    return made;
}

static void *serving(void *unused) {
    int code;
    (void)unused;
    do code = handoff_serve(h);
    while (code == HANDOFF_EBUSY); /* while the other thread looks whether we are in it */
    return (void *)(intptr_t)code;
}

/* Another thread blocks in serve: [owner] is busy, everything else is answered. */
static void two_owners(void) {
    pthread_t thread;
    void *end;
    char text[256];
    int code, until = 2000;
    pthread_create(&thread, NULL, serving, NULL);
    while ((code = handoff_warmed(h)) == HANDOFF_OK && until-- > 0) poll(NULL, 0, 5);
    for (int i = 0; i < EVERY; i++) {
        if (every[i].call == stop) continue; /* that comes last */
        code = every[i].call(h, 99);
        if (every[i].class != OWNER) {
            CHECK(code != HANDOFF_EBUSY);
            continue;
        }
        if (code != HANDOFF_EBUSY) fprintf(stderr, "%s: %d\n", every[i].name, code);
        IS(code, HANDOFF_EBUSY);
        handoff_errmsg(h, text, sizeof text);
        CHECK(strncmp(text, every[i].name, strlen(every[i].name)) == 0 && strstr(text, "in phase SERVING"));
    }
    IS(handoff_stop(h), HANDOFF_OK);
    pthread_join(thread, &end);
    IS((intptr_t)end, HANDOFF_STOPPED);
}

/* All at once: nobody waits for ever, and each code is one that the call may have. */
static void *hammers(void *unused) {
    char text[256];
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < EVERY; i++) {
            if (every[i].call == serve || every[i].call == stop) continue;
            int code = every[i].call(h, 99);
            CHECK(code != HANDOFF_EPANIC && code != HANDOFF_EFORKED && code != HANDOFF_ESYSTEM);
            CHECK(code != HANDOFF_EBUSY || every[i].class == OWNER);
        }
        handoff_errmsg(h, text, sizeof text);
        CHECK(strncmp(text, "handoff_", 8) == 0);
    }
    return NULL;
}

static void all_at_once(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, hammers, NULL);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    IS(handoff_phase(h), HANDOFF_PHASE_SERVING);
    IS(handoff_write_end(h), HANDOFF_ESTATE); /* nobody is left inside */
}

/* ---- fork ---- */
static int exit_code_of(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void is_a_child(void) {
    char text[256];
    refused(h, HANDOFF_EFORKED);
    CHECK(strstr(handoff_errmsg(h, text, sizeof text), "forked child"));
    CHECK(handoff_abi() == HANDOFF_ABI && handoff_strerror(HANDOFF_EFORKED));
}

static void *forks(void *unused) {
    pid_t child = fork();
    if (child == 0) {
        is_a_child();
        pid_t grandchild = fork();
        if (grandchild == 0) {
            is_a_child();
            handoff_free(h);
            _exit(failures != 0);
        }
        IS(exit_code_of(grandchild), 0);
        is_a_child();
        handoff_free(h);
        _exit(failures != 0);
    }
    IS(exit_code_of(child), 0);
    return unused;
}

static void children(void) {
    pthread_t thread;
    struct stat found;
    forks(NULL);
    pthread_create(&thread, NULL, forks, NULL);
    pthread_join(thread, NULL);
    CHECK(stat(control, &found) == 0); /* no child took anything away */
    IS(handoff_write_begin(h), HANDOFF_OK);
    IS(handoff_write_end(h), HANDOFF_OK);
    /* A child that exits without free, and one that makes a handle of its own: the lock is the parent's. */
    pid_t child = fork();
    if (child == 0) {
        handoff_free(h);
        handoff *own = made();
        int code, asked = 0;
        while ((code = handoff_wait_for_begin(own, 0)) == HANDOFF_PENDING && asked++ < 10000) poll(NULL, 0, 5);
        IS(code, HANDOFF_ELOCKED);
        handoff_free(own);
        _exit(failures != 0);
    }
    IS(exit_code_of(child), 0);
}

/* ---- signals ---- */
static atomic_int handled, broken, stops;

static void on_signal(int signal) {
    (void)signal;
    errno = 4711;
    int phase = handoff_phase(h);
    if (handoff_abi() != HANDOFF_ABI || !handoff_version()[0] || !handoff_strerror(-1)[0]) broken = 1;
    if (phase < HANDOFF_PHASE_STARTING || phase > HANDOFF_PHASE_SERVING) broken = 2;
    if (stops && handoff_stop(h) != HANDOFF_OK) broken = 3;
    if (handoff_stop(NULL) != HANDOFF_EINVAL) broken = 4;
    if (errno != 4711) broken = 5;
    handled++;
}

/* Every millisecond, while this thread is inside calls of all kinds, under the library's locks, too. */
static void interrupted(void) {
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = on_signal};
    handoff_event event;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 1000000 && handled < 100; i++) {
        IS(handoff_dispatch(h, &event, sizeof event), 0);
        IS(handoff_done(h, 99), HANDOFF_ESTALE);
        IS(handoff_remaining_ms(h, 99), 0);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(handled >= 100);
    IS(broken, 0);
}

/* A signal ends each call that waits. */
static void stopped_by_a_signal(void) {
    struct itimerval once = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    handoff *first = h;
    stops = 1;
    h = made(); /* waits for the lock that `first` holds */
    setitimer(ITIMER_REAL, &once, NULL);
    int code = handoff_wait_for_begin(h, -1);
    setitimer(ITIMER_REAL, &never, NULL);
    IS(code, HANDOFF_ESTOPPED);
    handoff_free(h);
    h = first;
    setitimer(ITIMER_REAL, &once, NULL);
    code = handoff_serve(h);
    setitimer(ITIMER_REAL, &never, NULL);
    IS(code, HANDOFF_STOPPED);
    IS(broken, 0);
}

static void start(void) {
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    IS(handoff_announce_ready(h, NULL, -1), HANDOFF_OK);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    snprintf(dir, sizeof dir, "%s", argv[1]);
    snprintf(control, sizeof control, "%s/control", dir);
    if (!(h = made())) return 1;
    start();
    all_at_once();
    if (argc == 2) children(); /* a child of many threads is not what every tool can follow */
    two_owners();
    handoff_free(h);
    if (!(h = made())) return 1;
    start();
    interrupted();
    stopped_by_a_signal();
    handoff_free(h);
    return failures != 0;
}
