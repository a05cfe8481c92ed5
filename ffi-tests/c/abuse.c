/* abuse.c DIR - every function with what it should not get, without a supervisor: a code, never a crash. */
#define _GNU_SOURCE
#include "check.h"
#include "every.h"
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[512], text[1024];
static int destroyed;
static void destroy(void *user) { *(int *)user += 1; }
static void silent(handoff *h, const handoff_event *e, void *user) { (void)h, (void)e, (void)user; }

static int errmsg_has(const handoff *h, const char *part) {
    int found = strstr(handoff_errmsg(h, text, sizeof text), part) != NULL;
    if (!found) fprintf(stderr, "errmsg: %s\n", text);
    return found;
}

static void library(void) {
    IS(handoff_abi(), HANDOFF_ABI);
    CHECK(handoff_version()[0] >= '0' && handoff_version()[0] <= '9');
    for (int code = HANDOFF_ENONAME; code <= HANDOFF_PENDING; code++)
        CHECK(strcmp(handoff_strerror(code), "an unknown code") != 0);
    CHECK(handoff_strerror(INT_MIN) && handoff_strerror(INT_MAX));
    CHECK(strcmp(handoff_errmsg(NULL, text, sizeof text), "the handle is NULL") == 0);
    CHECK(strcmp(handoff_errmsg(NULL, text, 4), "the") == 0);
    CHECK(strcmp(handoff_errmsg(NULL, NULL, 4), "") == 0 && strcmp(handoff_errmsg(NULL, text, 0), "") == 0);
}

/* Each function of a handle, on one that cannot be used: `code`. */
static void refused_everywhere(handoff *h, int code) {
    int count = 0;
    refused(h, code);
    IS(handoff_on_drain(h, silent, &count, destroy), code);
    IS(handoff_on_seal(h, silent, &count, destroy), code);
    IS(handoff_on_resume(h, silent, &count, destroy), code);
    IS(handoff_on_parked(h, silent, &count, destroy), code);
    IS(handoff_on_confirmed(h, silent, &count, destroy), code);
    IS(count, 5);
}

static void log_nothing(void *user, int32_t level, const char *target, const char *line) {
    (void)user, (void)level, (void)target, (void)line;
}

static void configs(void) {
    static char long_id[300];
    handoff_config *c = handoff_config_new();
    int count = 0;
    memset(long_id, 'x', sizeof long_id - 1);
    IS(handoff_config_set_str(NULL, HANDOFF_OPT_BUILD_ID, "x"), HANDOFF_EINVAL);
    IS(handoff_config_set_int(NULL, HANDOFF_OPT_FORKS, 0), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, NULL), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, long_id), HANDOFF_ETOOBIG);
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, ""), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, "\xff\xfe"), HANDOFF_OK); /* bytes, not UTF-8 */
    IS(handoff_config_set_str(c, HANDOFF_OPT_FORKS, "1"), HANDOFF_EINVAL);
    IS(handoff_config_set_int(c, HANDOFF_OPT_DATA_DIR, 1), HANDOFF_EINVAL);
    int32_t unknown[] = {0, -1, 9, 19, 29, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        IS(handoff_config_set_str(c, unknown[i], "x"), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, unknown[i], 1), HANDOFF_EINVAL);
    }
    for (int32_t option = HANDOFF_OPT_FORKS; option <= HANDOFF_OPT_TRANSFER; option++) {
        IS(handoff_config_set_int(c, option, INT64_MIN), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, option, 2), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, option, 0), HANDOFF_OK);
    }
    IS(handoff_config_set_int(c, HANDOFF_OPT_MODES, HANDOFF_MODE_OVERLAP), HANDOFF_OK);
    IS(handoff_config_set_int(c, HANDOFF_OPT_MODES, HANDOFF_MODE_EXCLUSIVE | HANDOFF_MODE_OVERLAP), HANDOFF_EINVAL);
    IS(handoff_config_set_int(c, HANDOFF_OPT_MODES, HANDOFF_MODE_EXCLUSIVE), HANDOFF_OK);
    IS(handoff_config_set_int(c, HANDOFF_OPT_MODES, 0), HANDOFF_EINVAL);
    for (int32_t option = HANDOFF_OPT_DEADLINE_MS; option <= HANDOFF_OPT_READY_MS; option++) {
        IS(handoff_config_set_str(c, option, "1"), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, option, -1), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, option, INT64_MAX), HANDOFF_EINVAL);
        IS(handoff_config_set_int(c, option, 1), HANDOFF_OK);
    }
    IS(handoff_config_set_int(c, HANDOFF_OPT_PROBATION_MS, 0), HANDOFF_OK);
    IS(handoff_config_set_int(c, HANDOFF_OPT_DEADLINE_MS, 0), HANDOFF_EINVAL);
    IS(handoff_config_set_int(c, HANDOFF_OPT_INCUMBENT_DEATH, 2), HANDOFF_EINVAL);
    IS(handoff_config_set_int(c, HANDOFF_OPT_ARG, 1), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_ARG, ""), HANDOFF_OK);
    IS(handoff_config_set_str(c, HANDOFF_OPT_BINARY, ""), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_ENV, "NAME"), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_ENV, "=value"), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_ENV, "NAME=a=b"), HANDOFF_OK);
    IS(handoff_set_log(NULL, log_nothing, &count, destroy), HANDOFF_EINVAL);
    IS(count, 1);
    IS(handoff_set_log(c, NULL, &count, destroy), HANDOFF_EINVAL);
    IS(count, 2);
    IS(handoff_set_log(c, log_nothing, &count, destroy), HANDOFF_OK);
    IS(handoff_set_log(c, log_nothing, &count, destroy), HANDOFF_OK); /* the first is not needed any more */
    IS(count, 3);
    handoff_config_free(c);
    IS(count, 4);
    handoff_config_free(NULL);
}

static handoff *made(const char *data, handoff_log_fn log, void *user) {
    handoff *h = NULL;
    char control[600];
    handoff_config *c = handoff_config_new();
    snprintf(control, sizeof control, "%s/control", data);
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, data), HANDOFF_OK);
    IS(handoff_config_set_str(c, HANDOFF_OPT_CONTROL_PATH, control), HANDOFF_OK);
    if (log) IS(handoff_set_log(c, log, user, destroy), HANDOFF_OK);
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_COLD_START);
    handoff_config_free(c);
    return h;
}

static void no_handle_without_sense(void) {
    handoff *h = (handoff *)text;
    handoff_config *c = handoff_config_new();
    IS(handoff_detect_role(NULL, NULL, NULL, 0), HANDOFF_EINVAL);
    IS(handoff_detect_role(NULL, NULL, text, 1), HANDOFF_EINVAL);
    CHECK(text[0] == '\0');
    handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, "/nowhere/at/all");
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_ESYSTEM);
    CHECK(h == (handoff *)text && strstr(text, "/nowhere/at/all"));
    handoff_config_set_str(c, HANDOFF_OPT_ARG, "x"); /* for a supervisor */
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_EINVAL);
    CHECK(strstr(text, "option 20 is not one of a daemon"));
    handoff_config_free(c);
}

static void too_early(handoff *h) {
    handoff_event event;
    uint64_t revision = 1;
    int count = 0;
    IS(handoff_phase(h), HANDOFF_PHASE_STARTING);
    IS(handoff_take_listener(h, NULL, 0), HANDOFF_ENOTGIVEN);
    IS(handoff_take_listener(h, "\xff", UINT32_MAX), HANDOFF_ENOTGIVEN);
    CHECK(handoff_listener_name(h, 0) == NULL && handoff_listener_name(h, UINT32_MAX) == NULL);
    CHECK(handoff_pollfd(h) >= 0);
    IS(handoff_serve(h), HANDOFF_ESTATE);
    CHECK(errmsg_has(h, "announce_ready"));
    IS(handoff_announce_ready(h, NULL, 0), HANDOFF_ESTATE);
    IS(handoff_dispatch(h, &event, sizeof event), 0);
    IS(handoff_dispatch(h, NULL, sizeof event), HANDOFF_EINVAL);
    IS(handoff_dispatch(h, &event, 8), HANDOFF_EINVAL);
    IS(handoff_done(h, 0), HANDOFF_ESTALE);
    IS(handoff_done(h, UINT64_MAX), HANDOFF_ESTALE);
    IS(handoff_sealed(h, 1, NULL, 0), HANDOFF_ESTALE);
    IS(handoff_sealed(h, 1, NULL, 1), HANDOFF_EINVAL);
    IS(handoff_sealed(h, 1, &revision, SIZE_MAX), HANDOFF_ETOOBIG);
    IS(handoff_failed(h, 1, NULL), HANDOFF_ESTALE);
    IS(handoff_progress(h, 1, UINT64_MAX, 0), HANDOFF_ESTALE);
    IS(handoff_remaining_ms(h, 1), 0);
    IS(handoff_write_begin(h), HANDOFF_ESEALED);
    IS(handoff_write_end(h), HANDOFF_ESTATE);
    IS(handoff_put_state(h, NULL, NULL, SIZE_MAX), HANDOFF_EINVAL);
    IS(handoff_put_state(h, "k", NULL, 0), HANDOFF_ESTATE);
    CHECK(errmsg_has(h, "handoff_put_state: connections and state are given inside of a drain or a seal"));
    IS(handoff_next_connection(h, NULL, 0), HANDOFF_EINVAL);
    IS(handoff_on_drain(h, NULL, &count, destroy), HANDOFF_EINVAL);
    IS(count, 1);
    IS(handoff_on_drain(h, silent, &count, destroy), HANDOFF_OK);
    IS(handoff_on_drain(h, silent, &destroyed, destroy), HANDOFF_OK);
    IS(count, 2); /* the second took its place */
    IS(handoff_on_seal(h, silent, &destroyed, destroy), HANDOFF_OK);
    IS(handoff_on_resume(h, silent, &destroyed, destroy), HANDOFF_OK);
}

static void becomes_ready(handoff *h) {
    uint64_t revision = 7;
    struct { handoff_readiness known; uint64_t newer; } large = {{0}, 0};
    handoff_readiness r = {0};
    IS(handoff_warmed(h), HANDOFF_OK);
    IS(handoff_wait_for_begin(h, 0), HANDOFF_OK);
    IS(handoff_wait_for_begin(h, INT_MIN), HANDOFF_OK); /* again does no harm */
    IS(handoff_phase(h), HANDOFF_PHASE_BEGUN);
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    CHECK(errmsg_has(h, "size"));
    r.size = UINT32_MAX;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    r.size = sizeof r;
    r.flags = 1u << 31;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    r.flags = 0;
    r.revision_count = 1;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    r.revisions = &revision;
    r.revision_count = SIZE_MAX;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_ETOOBIG);
    r.revision_count = 1;
    r.detail = "\xff is no UTF-8";
    large.known = r;
    large.known.size = sizeof large;
    large.newer = 1;
    IS(handoff_announce_ready(h, &large.known, 0), HANDOFF_EINVAL);
    large.newer = 0; /* a program of a newer header that wants nothing new */
    IS(handoff_announce_ready(h, &large.known, 0), HANDOFF_OK);
    IS(handoff_phase(h), HANDOFF_PHASE_SERVING);
    IS(handoff_announce_ready(h, NULL, 0), HANDOFF_ESTATE);
    IS(handoff_write_begin(h), HANDOFF_OK);
    IS(handoff_write_end(h), HANDOFF_OK);
}

/* A second one on the same data: refused after a while, also for those who ask without waiting. */
static void the_lock_is_taken(void) {
    handoff *other = made(dir, NULL, NULL);
    int code, asked = 0;
    while ((code = handoff_wait_for_begin(other, 0)) == HANDOFF_PENDING && asked++ < 10000) poll(NULL, 0, 5);
    IS(code, HANDOFF_ELOCKED);
    CHECK(errmsg_has(other, "is locked by"));
    IS(handoff_wait_for_begin(other, -1), HANDOFF_ELOCKED);
    handoff_free(other);
}

static void *serving(void *h) {
    int code;
    do code = handoff_serve(h);
    while (code == HANDOFF_EBUSY); /* while the other thread looks whether we are in it */
    return (void *)(intptr_t)code;
}

static int exit_code_of(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* From a thread beside the one that serves. */
static void forked(handoff *h) {
    char control[600];
    struct stat found;
    pid_t child = fork();
    if (child == 0) {
        refused_everywhere(h, HANDOFF_EFORKED);
        CHECK(strstr(handoff_errmsg(h, text, sizeof text), "forked"));
        handoff_free(h);
        _exit(failures != 0);
    }
    IS(exit_code_of(child), 0);
    snprintf(control, sizeof control, "%s/control", dir);
    CHECK(stat(control, &found) == 0); /* the child took nothing away */
    IS(handoff_phase(h), HANDOFF_PHASE_SERVING);
}

static void serves(handoff *h) {
    pthread_t thread;
    void *result;
    handoff_event event;
    int code, until = 2000;
    pthread_create(&thread, NULL, serving, h);
    while ((code = handoff_warmed(h)) == HANDOFF_OK && until-- > 0) poll(NULL, 0, 5); /* until it blocks */
    IS(code, HANDOFF_EBUSY);
    IS(handoff_serve(h), HANDOFF_EBUSY);
    IS(handoff_dispatch(h, &event, sizeof event), HANDOFF_EBUSY);
    IS(handoff_remaining_ms(h, 1), 0); /* [any] goes on */
    forked(h);
    errno = 1234;
    IS(handoff_stop(h), HANDOFF_OK);
    IS(errno, 1234);
    pthread_join(thread, &result);
    IS((intptr_t)result, HANDOFF_STOPPED);
    IS(handoff_serve(h), HANDOFF_STOPPED);
    struct { handoff_event known; char newer[24]; } large;
    memset(&large, 0x55, sizeof large);
    IS(handoff_dispatch(h, &large.known, sizeof large), 1);
    IS(large.known.kind, HANDOFF_EVENT_STOPPED);
    IS(large.known.size, 40);
    IS(large.newer[0], 0x55);
    handoff_free(h);
    IS(destroyed, 3);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    snprintf(dir, sizeof dir, "%s", argv[1]);
    library();
    refused_everywhere(NULL, HANDOFF_EINVAL);
    handoff_free(NULL);
    configs();
    no_handle_without_sense();
    handoff *h = made(dir, NULL, NULL);
    if (!h) return 1;
    too_early(h);
    becomes_ready(h);
    the_lock_is_taken();
    serves(h);
    h = made(dir, NULL, NULL); /* the data is free again */
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    handoff_free(h);
    return failures != 0;
}
