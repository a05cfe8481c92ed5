/* A library that is newer than the bindings: before each real event there is one of a kind that they do not know. It stands in
 * front of the real library, which it needs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <handoff.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LATER_KIND = 1000 };
static const char said[] = "newer: an event of a later kind\n";

int handoff_dispatch(handoff *h, handoff_event *event, size_t size) {
    static int calls;
    if (calls++ % 2 == 1) {
        int (*real)(handoff *, handoff_event *, size_t);
        *(void **)&real = dlsym(RTLD_NEXT, "handoff_dispatch");
        if (!real) abort();
        return real(h, event, size);
    }
    if (write(2, said, sizeof said - 1) < 0) abort();
    handoff_event later = {.size = sizeof later, .kind = LATER_KIND, .deadline_ns = UINT64_MAX, .cancel_fd = -1};
    memcpy(event, &later, size < sizeof later ? size : sizeof later);
    return 1;
}
