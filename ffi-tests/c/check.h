/* check.h - what the tests in C share. */
#ifndef CHECK_H
#define CHECK_H
#ifdef __cplusplus
#include <atomic>
using std::atomic_int;
#else
#include <stdatomic.h>
#endif
#include <stdio.h>

static atomic_int failures;

#define CHECK(what)                                                                  \
    do {                                                                             \
        if (!(what)) {                                                               \
            failures++;                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);        \
        }                                                                            \
    } while (0)
#define IS(call, code)                                                               \
    do {                                                                             \
        long is_ = (long)(call);                                                     \
        if (is_ != (long)(code)) {                                                   \
            failures++;                                                              \
            fprintf(stderr, "%s:%d: %s is %ld, not %s\n", __FILE__, __LINE__, #call, is_, #code); \
        }                                                                            \
    } while (0)
#endif
