#include "shim.h"
#include "_cgo_export.h"

static void log_line(void *user, int32_t level, const char *target, const char *text) {
    goHandoffLog((uintptr_t)user, level, (char *)target, (char *)text);
}

static void release(void *user) { goHandoffRelease((uintptr_t)user); }

int handoff_go_set_log(handoff_config *c, uintptr_t sink) {
    return handoff_set_log(c, log_line, (void *)sink, release);
}
