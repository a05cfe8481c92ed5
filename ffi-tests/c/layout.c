/* layout.c - what compiled programs rely on. Checked by compilers only, in C and in C++. */
#include <handoff.h>
#include <handoff.h> /* twice does no harm */

#ifdef __cplusplus
#define CHECK(name, what) static_assert(what, #what)
#elif __STDC_VERSION__ >= 201112L
#define CHECK(name, what) _Static_assert(what, #what)
#else
#define CHECK(name, what) typedef char check_##name[(what) ? 1 : -1]
#endif

CHECK(event, sizeof(handoff_event) == 40);
CHECK(event_kind, offsetof(handoff_event, kind) == 4);
CHECK(event_id, offsetof(handoff_event, id) == 8);
CHECK(event_deadline, offsetof(handoff_event, deadline_ns) == 16);
CHECK(event_cancel, offsetof(handoff_event, cancel_fd) == 24);
CHECK(event_flags, offsetof(handoff_event, flags) == 28);
CHECK(event_handoff, offsetof(handoff_event, handoff_id) == 32);
#if UINTPTR_MAX == UINT64_MAX
CHECK(readiness, sizeof(handoff_readiness) == 32);
CHECK(readiness_revisions, offsetof(handoff_readiness, revisions) == 8);
CHECK(readiness_count, offsetof(handoff_readiness, revision_count) == 16);
CHECK(readiness_detail, offsetof(handoff_readiness, detail) == 24);
CHECK(connection, sizeof(handoff_connection) == 32);
CHECK(connection_name, offsetof(handoff_connection, name) == 8);
CHECK(connection_state, offsetof(handoff_connection, state) == 16);
CHECK(connection_size, offsetof(handoff_connection, state_size) == 24);
#endif
CHECK(outcome, sizeof(handoff_outcome) == 592);
CHECK(outcome_result, offsetof(handoff_outcome, result) == 4);
CHECK(outcome_generation, offsetof(handoff_outcome, generation) == 16);
CHECK(outcome_pid, offsetof(handoff_outcome, pid) == 24);
CHECK(outcome_warm, offsetof(handoff_outcome, warm_ns) == 32);
CHECK(outcome_total, offsetof(handoff_outcome, total_ns) == 72);
CHECK(outcome_reason, offsetof(handoff_outcome, reason) == 80);
CHECK(abi, HANDOFF_ABI == 1);
CHECK(first_and_last_error, HANDOFF_EINVAL == -1 && HANDOFF_ENONAME == -21);
CHECK(results, HANDOFF_OK == 0 && HANDOFF_PENDING == 5);
CHECK(options, HANDOFF_OPT_CONTROL_PATH == 1 && HANDOFF_OPT_READY_MS == 28);
CHECK(phases, HANDOFF_PHASE_STARTING == 0 && HANDOFF_PHASE_REPLACED == 7);
CHECK(events, HANDOFF_EVENT_DRAIN == 1 && HANDOFF_EVENT_STOPPED == 6);
CHECK(outcomes, HANDOFF_OUTCOME_COMMITTED == 1 && HANDOFF_OUTCOME_UNDECIDED == 6);

/* As a daemon writes it: no warning in any dialect. */
static void hook(handoff *h, const handoff_event *event, void *user) {
    (void)user;
    switch (event->kind) {
    case HANDOFF_EVENT_DRAIN: (void)handoff_done(h, event->id); break;
    case HANDOFF_EVENT_SEAL: (void)handoff_sealed(h, event->id, NULL, 0); break;
    default: (void)handoff_failed(h, event->id, "no"); break;
    }
}

int use(handoff *h);
int use(handoff *h) {
    handoff_readiness ready = {0};
    ready.size = sizeof ready;
    ready.flags |= HANDOFF_READY_UNHEALTHY;
    if (handoff_abi() != HANDOFF_ABI || handoff_on_drain(h, hook, NULL, NULL) != HANDOFF_OK) return HANDOFF_EINVAL;
    return handoff_announce_ready(h, &ready, -1);
}
