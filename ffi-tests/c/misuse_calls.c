/* misuse_calls.c DIR - every function with every wrong argument, without a supervisor: a code and a text, never a crash. */
#define _GNU_SOURCE
#include "check.h"
#include "every.h"
#include <limits.h>
#include <stdlib.h>

enum { HUGE = 1 << 20 };
static char *huge; /* 1 MiB, no UTF-8 */
static char dir[512], text[2048];
static int destroyed;

static void destroy(void *user) { *(int *)user += 1; }
static void hook(handoff *h, const handoff_event *e, void *user) { (void)h, (void)e, (void)user; }
static void line(void *user, int32_t level, const char *target, const char *said) {
    (void)user, (void)level, (void)target, (void)said;
}

static int says(const handoff *h, const char *start, const char *end) {
    const char *said = handoff_errmsg(h, text, sizeof text);
    size_t size = strlen(said), tail = strlen(end);
    int so = strncmp(said, start, strlen(start)) == 0 && size >= tail && strcmp(said + size - tail, end) == 0;
    if (!so) fprintf(stderr, "errmsg: %s\n", said);
    return so;
}

static handoff_config *config(const char *data) {
    char control[600];
    handoff_config *c = handoff_config_new();
    snprintf(control, sizeof control, "%s/control", dir);
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, data), HANDOFF_OK);
    IS(handoff_config_set_str(c, HANDOFF_OPT_CONTROL_PATH, control), HANDOFF_OK);
    return c;
}

/* What is no handle: every call says EINVAL, handoff_errmsg says what is wrong, and nothing is touched or freed. */
static void no_handle(void *h) {
    int count = 0;
    refused(h, HANDOFF_EINVAL);
    IS(handoff_on_drain(h, hook, &count, destroy), HANDOFF_EINVAL);
    IS(handoff_on_seal(h, hook, &count, destroy), HANDOFF_EINVAL);
    IS(handoff_on_resume(h, hook, &count, destroy), HANDOFF_EINVAL);
    IS(count, 3);
    CHECK(says(h, h ? "this is not a handle" : "the handle is NULL", ""));
    handoff_free(h);
    handoff_free(h);
}

static void no_config(void *c) {
    int count = 0;
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, dir), HANDOFF_EINVAL);
    IS(handoff_config_set_int(c, HANDOFF_OPT_FORKS, 0), HANDOFF_EINVAL);
    IS(handoff_set_log(c, line, &count, destroy), HANDOFF_EINVAL);
    IS(count, 1);
    handoff_config_free(c);
    if (!c) return; /* NULL is a configuration for detect_role: the defaults */
    handoff *h = (handoff *)text;
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_EINVAL);
    CHECK(h == (handoff *)text && strcmp(text, "this is not a configuration") == 0);
}

static void the_wrong_kind(void) {
    static uint64_t zeroes[64], ones[64];
    handoff *h = NULL;
    handoff_config *c = config(dir);
    memset(ones, 0xff, sizeof ones);
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_COLD_START);
    void *wrong[] = {NULL, zeroes, ones, dir + 1, (char *)h + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        no_handle(wrong[i]);
        no_config(wrong[i]);
    }
    no_handle(c);
    no_config(h);
    IS(handoff_phase(h), HANDOFF_PHASE_STARTING); /* both are what they were */
    IS(handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, "x"), HANDOFF_OK);
    handoff_free(h);
    handoff_config_free(c);
}

/* Strings that are NULL, empty, huge, no UTF-8: in each option, each place. */
static void strings_of_a_config(void) {
    handoff_config *c = handoff_config_new();
    for (int32_t option = 1; option <= 28; option++) {
        IS(handoff_config_set_str(c, option, NULL), HANDOFF_EINVAL);
        int code = handoff_config_set_str(c, option, huge);
        switch (option) {
        case HANDOFF_OPT_CONTROL_PATH:
        case HANDOFF_OPT_DATA_DIR: IS(code, HANDOFF_OK); break; /* handoff_detect_role says more */
        case HANDOFF_OPT_ARG:
        case HANDOFF_OPT_BINARY: IS(code, HANDOFF_OK); break; /* execve says more */
        case HANDOFF_OPT_BUILD_ID: IS(code, HANDOFF_ETOOBIG); break;
        default: CHECK(code < 0);
        }
    }
    IS(handoff_config_set_str(c, HANDOFF_OPT_CONTROL_PATH, ""), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, ""), HANDOFF_EINVAL);
    IS(handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, ""), HANDOFF_OK);
    IS(handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, "\xff"), HANDOFF_OK);
    handoff_config_free(c);
}

static int detected(handoff_config *c, handoff **h) {
    memset(text, 'x', sizeof text);
    int code = handoff_detect_role(c, h, text, sizeof text);
    if (code < 0) CHECK(memchr(text, 0, sizeof text) && text[0]);
    handoff_config_free(c);
    return code;
}

static void strings_of_a_role(void) {
    char *inside = malloc(HUGE + 600);
    handoff *h = NULL;
    IS(detected(config(huge), &h), HANDOFF_ESYSTEM); /* ENAMETOOLONG, of a text that is cut off */
    snprintf(inside, HUGE + 600, "%s/\xff", dir);
    IS(detected(config(inside), &h), HANDOFF_ESYSTEM); /* ENOENT */
    CHECK(strstr(text, "No such file or directory"));
    CHECK(h == NULL);
    handoff_config *c = config(dir); /* a control path that no socket can have */
    IS(handoff_config_set_str(c, HANDOFF_OPT_CONTROL_PATH, huge), HANDOFF_OK);
    int code = detected(c, &h);
    if (code >= 0) {
        code = handoff_wait_for_begin(h, 0);
        CHECK(says(h, "handoff_wait_for_begin: control path ", "")); /* the end is cut off */
        handoff_free(h);
        h = NULL;
    }
    CHECK(code == HANDOFF_EINVAL || code == HANDOFF_ESYSTEM || code == HANDOFF_ETOOBIG);
    free(inside);
}

/* The buffer of a text: as much as fits, always a NUL, nothing behind it. */
static void buffers(handoff *h) {
    char all[sizeof text], small[sizeof text];
    IS(handoff_done(h, 77), HANDOFF_ESTALE);
    CHECK(handoff_errmsg(h, all, sizeof all) == all);
    CHECK(strncmp(all, "handoff_done: the event is over", 31) == 0);
    size_t length = strlen(all);
    for (size_t size = 0; size <= length + 2; size++) {
        memset(small, 0x55, sizeof small);
        const char *said = handoff_errmsg(h, small, size);
        size_t fits = size == 0 ? 0 : size - 1 < length ? size - 1 : length;
        CHECK(size == 0 ? said != small && !*said : said == small && strlen(said) == fits);
        CHECK(memcmp(all, said, fits) == 0);
        CHECK(small[size] == 0x55);
    }
    handoff *none = NULL;
    for (size_t size = 0; size < 80; size++) {
        memset(small, 0x55, sizeof small);
        handoff_config *c = config("/nowhere/at/all");
        IS(handoff_detect_role(c, &none, small, size), HANDOFF_ESYSTEM);
        CHECK(small[size] == 0x55 && (size == 0 || memchr(small, 0, size)));
        handoff_config_free(c);
    }
}

static void strings_of_a_handle(handoff *h) {
    handoff_event event;
    IS(handoff_take_listener(h, huge, 0), HANDOFF_ENOTGIVEN);
    IS(handoff_take_listener(h, "", UINT32_MAX), HANDOFF_ENOTGIVEN);
    CHECK(says(h, "handoff_take_listener: ", ", in phase STARTING"));
    CHECK(handoff_listener_name(h, UINT32_MAX) == NULL);
    IS(handoff_failed(h, 1, huge), HANDOFF_ESTALE);
    IS(handoff_failed(h, 1, ""), HANDOFF_ESTALE);
    CHECK(says(h, "handoff_failed: ", ", in phase STARTING"));
    IS(handoff_dispatch(h, NULL, 0), HANDOFF_EINVAL);
    IS(handoff_dispatch(h, NULL, SIZE_MAX), HANDOFF_EINVAL);
    IS(handoff_dispatch(h, &event, sizeof event - 1), HANDOFF_EINVAL);
    CHECK(says(h, "handoff_dispatch: ", ", in phase STARTING"));
    const char *keys[] = {NULL, "", huge, "\xff"};
    for (size_t i = 0; i < 4; i++) {
        IS(handoff_put_state(h, keys[i], NULL, SIZE_MAX), HANDOFF_EINVAL);
        IS(handoff_put_state(h, keys[i], "v", SIZE_MAX), i == 0 ? HANDOFF_EINVAL : HANDOFF_ETOOBIG);
        IS(handoff_put_state_fd(h, keys[i], INT_MIN), HANDOFF_EINVAL);
        IS(handoff_get_state(h, keys[i], NULL, NULL), HANDOFF_EINVAL);
        IS(handoff_take_state_fd(h, keys[i]), i == 0 ? HANDOFF_EINVAL : HANDOFF_ESTATE);
        IS(handoff_put_connection(h, INT_MAX, keys[i], NULL, SIZE_MAX), HANDOFF_EINVAL);
        IS(handoff_next_connection(h, NULL, SIZE_MAX), HANDOFF_EINVAL);
    }
    CHECK(says(h, "handoff_next_connection: there is no room for a connection", ", in phase STARTING"));
    for (int i = 0; i < 6; i++) {
        int (*on[])(handoff *, handoff_hook_fn, void *, handoff_destroy_fn) = {
            handoff_on_drain,  handoff_on_seal,      handoff_on_resume,
            handoff_on_parked, handoff_on_confirmed, handoff_on_connections};
        destroyed = 0;
        IS(on[i](h, NULL, NULL, NULL), HANDOFF_EINVAL);
        IS(on[i](h, NULL, &destroyed, destroy), HANDOFF_EINVAL);
        IS(destroyed, 1);
        IS(on[i](h, hook, NULL, NULL), HANDOFF_OK);
    }
}

static void revisions_of(handoff *h) {
    static uint64_t many[2], *odd = (uint64_t *)(void *)((char *)many + 1);
    size_t counts[] = {4097, 1 << 20, SIZE_MAX / 8 + 1, SIZE_MAX};
    handoff_readiness r = {.size = sizeof r, .revisions = many};
    for (size_t i = 0; i < 4; i++) {
        r.revision_count = counts[i];
        IS(handoff_sealed(h, 1, many, counts[i]), HANDOFF_ETOOBIG);
        IS(handoff_announce_ready(h, &r, 0), HANDOFF_ETOOBIG);
        CHECK(says(h, "handoff_announce_ready: ", ", in phase BEGUN"));
        IS(handoff_sealed(h, 1, NULL, counts[i]), HANDOFF_EINVAL);
    }
    IS(handoff_sealed(h, 1, odd, 1), HANDOFF_EINVAL);
    r.revisions = odd, r.revision_count = 1;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    IS(handoff_announce_ready(h, (handoff_readiness *)(void *)((char *)&r + 1), 0), HANDOFF_EINVAL);
    for (uint32_t size = 0; size < sizeof r; size++) {
        r.size = size;
        IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    }
    for (int bit = 2; bit < 32; bit++) {
        r.size = sizeof r, r.flags = 1u << bit;
        IS(handoff_announce_ready(h, &r, 0), HANDOFF_EINVAL);
    }
    r.flags = 0, r.revisions = many, r.revision_count = 1, r.detail = huge;
    IS(handoff_announce_ready(h, &r, 0), HANDOFF_OK); /* for people: cut off where it has to be */
}

int main(int argc, char **argv) {
    if (argc != 2 || !(huge = malloc(HUGE + 1))) return 2;
    snprintf(dir, sizeof dir, "%s", argv[1]);
    memset(huge, 0xfe, HUGE);
    huge[HUGE] = 0;
    the_wrong_kind();
    strings_of_a_config();
    strings_of_a_role();
    handoff *h = NULL;
    IS(detected(config(dir), &h), HANDOFF_COLD_START);
    if (!h) return 1;
    buffers(h);
    strings_of_a_handle(h);
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    revisions_of(h);
    IS(handoff_phase(h), HANDOFF_PHASE_SERVING);
    IS(handoff_stop(h), HANDOFF_OK);
    IS(handoff_stop(h), HANDOFF_OK); /* twice */
    IS(handoff_serve(h), HANDOFF_STOPPED);
    handoff_free(h);
    free(huge);
    return failures != 0;
}
