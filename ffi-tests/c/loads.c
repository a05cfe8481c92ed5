/* loads.c - the library as a plugin would have it: loaded by its path, given back, and still there, as its fork handler
 * must be. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <handoff.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *(*version)(void);
    int (*detect)(const handoff_config *, handoff **, char *, size_t), (*warmed)(handoff *);
    void (*release)(handoff *);
    handoff *h = NULL;
    int status = -1;
    (void)argc;
    for (int i = 0; i < 3; i++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
        *(void **)&version = dlsym(library, "handoff_version");
        *(void **)&detect = dlsym(library, "handoff_detect_role");
        *(void **)&warmed = dlsym(library, "handoff_warmed");
        *(void **)&release = dlsym(library, "handoff_free");
        if (i == 0) CHECK(detect(NULL, &h, NULL, 0) == HANDOFF_COLD_START);
        dlclose(library);
        CHECK(strcmp(version(), argv[2]) == 0);
    }
    pid_t pid = fork();
    if (pid == 0) _exit(warmed(h) == HANDOFF_EFORKED ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    release(h);
    return failures != 0;
}
