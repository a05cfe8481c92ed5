/* layout.c - what compiled programs rely on. Checked by compilers only, in C and in C++. */
#include <handoff.h> /* first: it needs nothing before it */
#include <handoff.h> /* twice does no harm */

#ifdef __cplusplus
#define CHECK(name, what) static_assert(what, #what)
#elif __STDC_VERSION__ >= 201112L
#define CHECK(name, what) _Static_assert(what, #what)
#else
#define CHECK(name, what) typedef char check_##name[(what) ? 1 : -1]
#endif

/* Where each field is and how large; each struct's size and alignment. */
#define FIELD(type, field, offset, size)                         \
    CHECK(type##_##field##_at, offsetof(type, field) == offset); \
    CHECK(type##_##field##_of, sizeof(((type *)0)->field) == size)
#define ALIGN(type, align)               \
    struct type##_behind {               \
        char c;                          \
        type t;                          \
    };                                   \
    CHECK(type##_align, offsetof(struct type##_behind, t) == align)

#if UINTPTR_MAX == UINT64_MAX
CHECK(handoff_readiness, sizeof(handoff_readiness) == 32);
ALIGN(handoff_readiness, 8);
FIELD(handoff_readiness, size, 0, 4);
FIELD(handoff_readiness, flags, 4, 4);
FIELD(handoff_readiness, revisions, 8, 8);
FIELD(handoff_readiness, revision_count, 16, 8);
FIELD(handoff_readiness, detail, 24, 8);
#endif
CHECK(handoff_event, sizeof(handoff_event) == 40);
ALIGN(handoff_event, 8);
FIELD(handoff_event, size, 0, 4);
FIELD(handoff_event, kind, 4, 4);
FIELD(handoff_event, id, 8, 8);
FIELD(handoff_event, deadline_ns, 16, 8);
FIELD(handoff_event, cancel_fd, 24, 4);
FIELD(handoff_event, flags, 28, 4);
FIELD(handoff_event, handoff_id, 32, 8);
#if UINTPTR_MAX == UINT64_MAX
CHECK(handoff_connection, sizeof(handoff_connection) == 32);
ALIGN(handoff_connection, 8);
FIELD(handoff_connection, size, 0, 4);
FIELD(handoff_connection, fd, 4, 4);
FIELD(handoff_connection, name, 8, 8);
FIELD(handoff_connection, state, 16, 8);
FIELD(handoff_connection, state_size, 24, 8);
#endif
CHECK(handoff_outcome, sizeof(handoff_outcome) == 608);
ALIGN(handoff_outcome, 8);
FIELD(handoff_outcome, size, 0, 4);
FIELD(handoff_outcome, result, 4, 4);
FIELD(handoff_outcome, handoff_id, 8, 8);
FIELD(handoff_outcome, generation, 16, 8);
FIELD(handoff_outcome, pid, 24, 4);
FIELD(handoff_outcome, pidfd, 28, 4);
FIELD(handoff_outcome, warm_ns, 32, 8);
FIELD(handoff_outcome, drain_ns, 40, 8);
FIELD(handoff_outcome, seal_ns, 48, 8);
FIELD(handoff_outcome, ready_ns, 56, 8);
FIELD(handoff_outcome, pause_ns, 64, 8);
FIELD(handoff_outcome, total_ns, 72, 8);
FIELD(handoff_outcome, reason, 80, 512);
FIELD(handoff_outcome, connections, 592, 8);
FIELD(handoff_outcome, state_bytes, 600, 8);

/* Numbers never change, and are never used again for something else. */
CHECK(abi, HANDOFF_ABI == 1);
CHECK(handoff_results, sizeof(handoff_results) == 4);
CHECK(handoff_ok, HANDOFF_OK == 0);
CHECK(handoff_cold_start, HANDOFF_COLD_START == 1);
CHECK(handoff_successor, HANDOFF_SUCCESSOR == 2);
CHECK(handoff_replaced, HANDOFF_REPLACED == 3);
CHECK(handoff_stopped, HANDOFF_STOPPED == 4);
CHECK(handoff_pending, HANDOFF_PENDING == 5);
CHECK(handoff_errors, sizeof(handoff_errors) == 4);
CHECK(handoff_einval, HANDOFF_EINVAL == -1);
CHECK(handoff_enomem, HANDOFF_ENOMEM == -2);
CHECK(handoff_esystem, HANDOFF_ESYSTEM == -3);
CHECK(handoff_ebusy, HANDOFF_EBUSY == -4);
CHECK(handoff_estate, HANDOFF_ESTATE == -5);
CHECK(handoff_eforked, HANDOFF_EFORKED == -6);
CHECK(handoff_epanic, HANDOFF_EPANIC == -7);
CHECK(handoff_eaborted, HANDOFF_EABORTED == -8);
CHECK(handoff_estale, HANDOFF_ESTALE == -9);
CHECK(handoff_elocked, HANDOFF_ELOCKED == -10);
CHECK(handoff_esealed, HANDOFF_ESEALED == -11);
CHECK(handoff_enotgiven, HANDOFF_ENOTGIVEN == -12);
CHECK(handoff_erefused, HANDOFF_EREFUSED == -13);
CHECK(handoff_eversion, HANDOFF_EVERSION == -14);
CHECK(handoff_eprotocol, HANDOFF_EPROTOCOL == -15);
CHECK(handoff_etoobig, HANDOFF_ETOOBIG == -16);
CHECK(handoff_eduplicate, HANDOFF_EDUPLICATE == -17);
CHECK(handoff_elimit, HANDOFF_ELIMIT == -18);
CHECK(handoff_estopped, HANDOFF_ESTOPPED == -19);
CHECK(handoff_eresume, HANDOFF_ERESUME == -20);
CHECK(handoff_enoname, HANDOFF_ENONAME == -21);
CHECK(handoff_phases, sizeof(handoff_phases) == 4);
CHECK(handoff_phase_starting, HANDOFF_PHASE_STARTING == 0);
CHECK(handoff_phase_begun, HANDOFF_PHASE_BEGUN == 1);
CHECK(handoff_phase_serving, HANDOFF_PHASE_SERVING == 2);
CHECK(handoff_phase_draining, HANDOFF_PHASE_DRAINING == 3);
CHECK(handoff_phase_sealing, HANDOFF_PHASE_SEALING == 4);
CHECK(handoff_phase_sealed, HANDOFF_PHASE_SEALED == 5);
CHECK(handoff_phase_resuming, HANDOFF_PHASE_RESUMING == 6);
CHECK(handoff_phase_replaced, HANDOFF_PHASE_REPLACED == 7);
CHECK(handoff_events, sizeof(handoff_events) == 4);
CHECK(handoff_event_drain, HANDOFF_EVENT_DRAIN == 1);
CHECK(handoff_event_seal, HANDOFF_EVENT_SEAL == 2);
CHECK(handoff_event_resume, HANDOFF_EVENT_RESUME == 3);
CHECK(handoff_event_connections, HANDOFF_EVENT_CONNECTIONS == 4);
CHECK(handoff_event_replaced, HANDOFF_EVENT_REPLACED == 5);
CHECK(handoff_event_stopped, HANDOFF_EVENT_STOPPED == 6);
CHECK(handoff_event_confirmed, HANDOFF_EVENT_CONFIRMED == 7);
CHECK(handoff_event_parked, HANDOFF_EVENT_PARKED == 8);
CHECK(handoff_event_flags, sizeof(handoff_event_flags) == 4);
CHECK(handoff_event_after_commit, HANDOFF_EVENT_AFTER_COMMIT == 1);
CHECK(handoff_options, sizeof(handoff_options) == 4);
CHECK(handoff_opt_control_path, HANDOFF_OPT_CONTROL_PATH == 1);
CHECK(handoff_opt_data_dir, HANDOFF_OPT_DATA_DIR == 2);
CHECK(handoff_opt_build_id, HANDOFF_OPT_BUILD_ID == 3);
CHECK(handoff_opt_modes, HANDOFF_OPT_MODES == 4);
CHECK(handoff_opt_forks, HANDOFF_OPT_FORKS == 5);
CHECK(handoff_opt_helper_thread, HANDOFF_OPT_HELPER_THREAD == 6);
CHECK(handoff_opt_network_data_dir, HANDOFF_OPT_NETWORK_DATA_DIR == 7);
CHECK(handoff_opt_transfer, HANDOFF_OPT_TRANSFER == 8);
CHECK(handoff_opt_arg, HANDOFF_OPT_ARG == 20);
CHECK(handoff_opt_env, HANDOFF_OPT_ENV == 21);
CHECK(handoff_opt_binary, HANDOFF_OPT_BINARY == 22);
CHECK(handoff_opt_deadline_ms, HANDOFF_OPT_DEADLINE_MS == 23);
CHECK(handoff_opt_drain_grace_ms, HANDOFF_OPT_DRAIN_GRACE_MS == 24);
CHECK(handoff_opt_probation_ms, HANDOFF_OPT_PROBATION_MS == 25);
CHECK(handoff_opt_incumbent_death, HANDOFF_OPT_INCUMBENT_DEATH == 26);
CHECK(handoff_opt_hello_ms, HANDOFF_OPT_HELLO_MS == 27);
CHECK(handoff_opt_ready_ms, HANDOFF_OPT_READY_MS == 28);
CHECK(handoff_modes, sizeof(handoff_modes) == 4);
CHECK(handoff_mode_exclusive, HANDOFF_MODE_EXCLUSIVE == 1);
CHECK(handoff_mode_overlap, HANDOFF_MODE_OVERLAP == 2);
CHECK(handoff_forks, sizeof(handoff_forks) == 4);
CHECK(handoff_forks_count, HANDOFF_FORKS_COUNT == 0);
CHECK(handoff_forks_ignore, HANDOFF_FORKS_IGNORE == 1);
CHECK(handoff_ready_flags, sizeof(handoff_ready_flags) == 4);
CHECK(handoff_ready_unhealthy, HANDOFF_READY_UNHEALTHY == 1);
CHECK(handoff_ready_format_changes, HANDOFF_READY_FORMAT_CHANGES == 2);
CHECK(handoff_outcomes, sizeof(handoff_outcomes) == 4);
CHECK(handoff_outcome_committed, HANDOFF_OUTCOME_COMMITTED == 1);
CHECK(handoff_outcome_rolled_back, HANDOFF_OUTCOME_ROLLED_BACK == 2);
CHECK(handoff_outcome_reverted, HANDOFF_OUTCOME_REVERTED == 3);
CHECK(handoff_outcome_started_cold, HANDOFF_OUTCOME_STARTED_COLD == 4);
CHECK(handoff_outcome_refused, HANDOFF_OUTCOME_REFUSED == 5);
CHECK(handoff_outcome_undecided, HANDOFF_OUTCOME_UNDECIDED == 6);
CHECK(handoff_outcome_failed, HANDOFF_OUTCOME_FAILED == 7);
CHECK(handoff_outcome_adopted, HANDOFF_OUTCOME_ADOPTED == 8);
CHECK(handoff_log_levels, sizeof(handoff_log_levels) == 4);
CHECK(handoff_log_error, HANDOFF_LOG_ERROR == 1);
CHECK(handoff_log_warn, HANDOFF_LOG_WARN == 2);
CHECK(handoff_log_info, HANDOFF_LOG_INFO == 3);
CHECK(handoff_log_debug, HANDOFF_LOG_DEBUG == 4);
CHECK(handoff_log_trace, HANDOFF_LOG_TRACE == 5);

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
