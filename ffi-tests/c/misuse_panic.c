/* misuse_panic.c DIR - the library panics in a call: that call and every later one say so, and free frees. It needs a
 * library with crash points, and the order "panic O:before take lock". */
#include "check.h"
#include "every.h"

static int told, freed;

static void on_log(void *user, int32_t level, const char *target, const char *text) {
    CHECK(user == &freed && strcmp(target, "handoff") == 0);
    if (level == HANDOFF_LOG_ERROR && strstr(text, "told to panic")) told++;
}

static void destroy(void *user) { *(int *)user += 1; }
static void hook(handoff *h, const handoff_event *e, void *user) { (void)h, (void)e, (void)user; }

int main(int argc, char **argv) {
    char text[256];
    handoff *h = NULL;
    handoff_config *c = handoff_config_new();
    if (argc != 2) return 2;
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, argv[1]), HANDOFF_OK);
    IS(handoff_set_log(c, on_log, &freed, destroy), HANDOFF_OK);
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_COLD_START);
    handoff_config_free(c);
    IS(handoff_on_drain(h, hook, &freed, destroy), HANDOFF_OK);
    IS(handoff_wait_for_begin(h, -1), HANDOFF_EPANIC);
    IS(told, 1);
    for (int again = 0; again < 2; again++) {
        refused(h, HANDOFF_EPANIC);
        handoff_errmsg(h, text, sizeof text);
        CHECK(strcmp(text, "handoff_wait_for_begin: the library panicked; this handle can only be freed, "
                           "in phase STARTING") == 0);
    }
    IS(handoff_on_seal(h, hook, &freed, destroy), HANDOFF_EPANIC);
    IS(freed, 1);
    handoff_free(h);
    IS(freed, 3);
    /* The order was carried out: another handle works, and finds the lock free. */
    c = handoff_config_new();
    IS(handoff_config_set_str(c, HANDOFF_OPT_DATA_DIR, argv[1]), HANDOFF_OK);
    IS(handoff_detect_role(c, &h, text, sizeof text), HANDOFF_COLD_START);
    handoff_config_free(c);
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    handoff_free(h);
    return failures != 0;
}
