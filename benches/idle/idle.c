/* idle.c - a daemon with nothing to do, for the measures of `cargo bench --bench languages`.
 *
 * BENCH_HANDOFF_FLOOR  writes a byte first of all, and exits
 * BENCH_HANDOFF_START  writes it when the library has said which role this is; compiled with BARE, without the library */
#include <stdlib.h>
#include <unistd.h>

static int say(void) { return write(STDOUT_FILENO, "!", 1) != 1; }

#ifdef BARE
int main(void) { return say(); }
#else
#include <handoff.h>

static void done(handoff *h, const handoff_event *e, void *user) { (void)user; handoff_done(h, e->id); }
static void seal(handoff *h, const handoff_event *e, void *user) { (void)user; handoff_sealed(h, e->id, NULL, 0); }

int main(void) {
    handoff *h;
    if (getenv("BENCH_HANDOFF_FLOOR")) return say();
    if (handoff_detect_role(NULL, &h, NULL, 0) < 0) return 1;
    if (getenv("BENCH_HANDOFF_START")) return say();
    handoff_on_drain(h, done, NULL, NULL);
    handoff_on_seal(h, seal, NULL, NULL);
    handoff_on_resume(h, done, NULL, NULL);
    if (handoff_wait_for_begin(h, -1) < 0 || handoff_announce_ready(h, NULL, -1) < 0) return 1;
    _exit(handoff_serve(h) < 0);
}
#endif
