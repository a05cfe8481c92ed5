/* handoff.h - replace the binary of a running daemon, with nothing lost.
 *
 * Made from src/ffi by cbindgen: change it there.
 *
 * One main serves a cold start and a successor; without a supervisor the library behaves as if it were absent:
 *
 *     handoff_detect_role(NULL, &h, err, sizeof err);          who am I?
 *     handoff_on_drain(h, drain, 0, 0);  and on_seal, on_resume
 *     fd = handoff_take_listener(h, "http", 0);                ENOTGIVEN: bind your own
 *     handoff_wait_for_begin(h, -1);                           the lock is held: open the data
 *     handoff_announce_ready(h, NULL, -1);                     committed: accept
 *     if (handoff_serve(h) == HANDOFF_REPLACED) _exit(0);      or handoff_pollfd and handoff_dispatch in a loop of yours
 *
 * Each call on a handle belongs to one class, given in brackets:
 *
 *   [owner]   one thread at a time per handle, any thread; overlap or a call from inside a hook gives HANDOFF_EBUSY.
 *   [event]   while an event is open (inside its hook, or between dispatch and the answer); any thread, also while
 *             serve blocks.
 *   [any]     any thread, any time until handoff_free, also while handoff_serve blocks.
 *   [signal]  [any], and async-signal-safe.
 *
 * Hooks run inside serve or dispatch, on the thread that called it. They return nothing and answer by a call with the
 * event's id: silence is failure. While one runs, an abort shows as a readable cancel_fd, as remaining_ms 0, and as
 * HANDOFF_ESTALE from progress; RESUME follows when the hook has returned, with pollfd at once.
 *
 * After fork, in the child: the control and transfer sockets are closed; every call but handoff_free gives
 * HANDOFF_EFORKED. Listeners and lock are inherited as descriptors: a child that still writes keeps a new start out.
 *
 * After HANDOFF_REPLACED the data belongs to another process: _exit, no atexit handlers, no flush.
 *
 * Returns: negative = error code, see handoff_strerror and handoff_errmsg. Outputs are written only on success.
 * Ownership: put copies or duplicates, take gives you something that is yours, get borrows until a named call. Strings
 * in are bytes that end with NUL, and are copied. Every descriptor is close-on-exec. Nothing that is returned must be
 * freed, except handles. A NULL handle gives HANDOFF_EINVAL. When memory runs out, the process is aborted.
 *
 * No thread outside a handoff; during one, a helper thread with all signals blocked, which never calls back. No signal
 * handler, no SIGCHLD, no stdio. Link with -lhandoff.
 */

#ifndef HANDOFF_H
#define HANDOFF_H

#include <stddef.h>
#include <stdint.h>

// The ABI that this header describes; compare with handoff_abi().
#define HANDOFF_ABI 1

// What a call returns when it did not fail.
typedef enum handoff_results {
    // It is done.
    HANDOFF_OK = 0,
    // detect_role: nobody is to be replaced. resume_from_journal: nobody is left.
    HANDOFF_COLD_START = 1,
    // detect_role: this process was started to replace another one.
    HANDOFF_SUCCESSOR = 2,
    // serve: the data is not yours any more: _exit, write nothing.
    HANDOFF_REPLACED = 3,
    // serve: handoff_stop was called; shut down as you always did.
    HANDOFF_STOPPED = 4,
    // The timeout ran out; call the same function again.
    HANDOFF_PENDING = 5,
} handoff_results;

// Error codes. A number is never used again for something else.
typedef enum handoff_errors {
    // An argument or a setting makes no sense.
    HANDOFF_EINVAL = -1,
    // No memory.
    HANDOFF_ENOMEM = -2,
    // A system call failed.
    HANDOFF_ESYSTEM = -3,
    // Another thread is inside a call of class [owner], or a hook calls one.
    HANDOFF_EBUSY = -4,
    // Not in this phase, or not in this version of the library.
    HANDOFF_ESTATE = -5,
    // Called in a forked child: the handle belongs to the parent.
    HANDOFF_EFORKED = -6,
    // The library panicked, which is a bug in it; the handle can only be freed.
    HANDOFF_EPANIC = -7,
    // The handoff was aborted: exit. perform_handoff: cancelled before it began.
    HANDOFF_EABORTED = -8,
    // The event is over: answered, cancelled or late. The call did nothing.
    HANDOFF_ESTALE = -9,
    // Somebody else may write the data; handoff_errmsg names the process.
    HANDOFF_ELOCKED = -10,
    // The data must not be written now.
    HANDOFF_ESEALED = -11,
    // No listener at all was given to this process: bind your own.
    HANDOFF_ENOTGIVEN = -12,
    // The other side refuses.
    HANDOFF_EREFUSED = -13,
    // No protocol version in common.
    HANDOFF_EVERSION = -14,
    // The other side broke the protocol.
    HANDOFF_EPROTOCOL = -15,
    // More than fits.
    HANDOFF_ETOOBIG = -16,
    // Twice the same name or key.
    HANDOFF_EDUPLICATE = -17,
    // A limit of the process or of the system.
    HANDOFF_ELIMIT = -18,
    // handoff_stop was called.
    HANDOFF_ESTOPPED = -19,
    // This process cannot take over again: exit.
    HANDOFF_ERESUME = -20,
    // Listeners were given, but none of this name.
    HANDOFF_ENONAME = -21,
} handoff_errors;

// handoff_phase. The data may be written in BEGUN, SERVING, DRAINING and SEALING.
typedef enum handoff_phases {
    HANDOFF_PHASE_STARTING = 0,
    HANDOFF_PHASE_BEGUN = 1,
    HANDOFF_PHASE_SERVING = 2,
    HANDOFF_PHASE_DRAINING = 3,
    HANDOFF_PHASE_SEALING = 4,
    HANDOFF_PHASE_SEALED = 5,
    HANDOFF_PHASE_RESUMING = 6,
    HANDOFF_PHASE_REPLACED = 7,
} handoff_phases;

// handoff_event.kind. A kind that is not here is a newer library's: ignore it. It never wants an answer.
typedef enum handoff_events {
    // Stop accepting, finish, make acknowledged writes durable. Answer: done or failed. Take a listener out of your epoll before you
    // close it: an epoll watches what the successor has, too, and would go on to wake you.
    HANDOFF_EVENT_DRAIN = 1,
    // Flush and close the writers. Answer: sealed or failed; the lock is released after it.
    HANDOFF_EVENT_SEAL = 2,
    // The lock is yours again, or still: reopen, take listeners again, accept. What the drain or the seal would have closed
    // may be open, since either may have been given up. Answer: done or failed.
    HANDOFF_EVENT_RESUME = 3,
    // Overlap mode: the incumbent, which drains, has given connections: call handoff_next_connection until it returns 0. It comes
    // once for those that have come, and again if only some are taken; also in a drain of this process's own, which can give
    // them on. No answer.
    HANDOFF_EVENT_CONNECTIONS = 4,
    // As the result of serve. No answer.
    HANDOFF_EVENT_REPLACED = 5,
    // As the result of serve. No answer.
    HANDOFF_EVENT_STOPPED = 6,
    // The probation of the handoff that this process came by is over: nobody will take over from it, and the format on disk may
    // be changed. Only after a handoff with HANDOFF_OPT_PROBATION_MS. No answer.
    HANDOFF_EVENT_CONFIRMED = 7,
    // The successor serves on probation, and this process is its reserve: close the connections that you gave, without shutdown(2),
    // or their clients see no end of them when the successor hangs up. Stay sealed: REPLACED follows, or, if the successor dies,
    // RESUME. Only in a handoff with HANDOFF_OPT_PROBATION_MS. No answer.
    HANDOFF_EVENT_PARKED = 8,
} handoff_events;

// handoff_event.flags
typedef enum handoff_event_flags {
    // DRAIN, in overlap mode: the successor serves. This drain cannot be taken back; its end, also by its deadline, is the end of
    // this process. RESUME: the successor had committed, and has died. Close the connections that were given to it, since it may
    // have read and written them; memory that it was given may be half written.
    HANDOFF_EVENT_AFTER_COMMIT = 1,
} handoff_event_flags;

// Options. S = string, I = integer, + = may be given many times. Those below 20 are for handoff_detect_role; of them
// handoff_supervisor_new takes BUILD_ID, and whatever takes a spawn CONTROL_PATH and DATA_DIR (default: none), as the daemon
// should find them. The others are for a spawn. Times are in milliseconds, from 1 to 2147483647.
typedef enum handoff_options {
    // S  default $HANDOFF_CONTROL; none: no control socket, the daemon cannot be replaced.
    HANDOFF_OPT_CONTROL_PATH = 1,
    // S  default $HANDOFF_DATA_DIR; none: lock and gate beside the control path; no control path either: none.
    HANDOFF_OPT_DATA_DIR = 2,
    // S  which build this is, for people, at most 256 bytes; default: the ELF build id of the executable.
    HANDOFF_OPT_BUILD_ID = 3,
    // I  HANDOFF_MODE_EXCLUSIVE (default) or HANDOFF_MODE_OVERLAP. Not both: the one needs the lock, and the other must not
    // have it.
    HANDOFF_OPT_MODES = 4,
    // I  HANDOFF_FORKS_COUNT (default) or HANDOFF_FORKS_IGNORE, see handoff_sealed.
    HANDOFF_OPT_FORKS = 5,
    // I  1 (default): one thread, alive only during a handoff, heartbeats and hears an abort; 0: none.
    HANDOFF_OPT_HELPER_THREAD = 6,
    // I  1: accept a data directory on NFS and the like, whose locks may not keep other hosts out; 0 (default): refuse.
    HANDOFF_OPT_NETWORK_DATA_DIR = 7,
    // I  1: a handoff to a successor that takes neither connections nor state is refused before the drain; 0 (default): it
    // goes on, and what would give them returns HANDOFF_EREFUSED.
    HANDOFF_OPT_TRANSFER = 8,
    // S+ spawn: argv, in order, the program's name first.
    HANDOFF_OPT_ARG = 20,
    // S+ spawn: NAME=value, beside this process's own environment; not LISTEN_* and HANDOFF_*.
    HANDOFF_OPT_ENV = 21,
    // S  spawn: path to execute, default argv[0]; without a slash it is searched in PATH.
    HANDOFF_OPT_BINARY = 22,
    // I  spawn: the whole handoff, or a cold start until it is UNDECIDED; default 300000.
    HANDOFF_OPT_DEADLINE_MS = 23,
    // I  spawn: the drain, default 60000.
    HANDOFF_OPT_DRAIN_GRACE_MS = 24,
    // I  spawn: park the incumbent that long after commit, default 0. If the successor dies in this time, the incumbent takes over,
    // by itself; perform_handoff has returned COMMITTED by then. The next perform_handoff ends it.
    HANDOFF_OPT_PROBATION_MS = 25,
    // I  spawn: if the incumbent dies before it has sealed: 0 its own program starts cold (default), 1 the successor is promoted.
    HANDOFF_OPT_INCUMBENT_DEATH = 26,
    // I  spawn: until a process says Hello, default 10000. One that starts cold and never does is one without the library: it
    // is taken to serve then.
    HANDOFF_OPT_HELLO_MS = 27,
    // I  spawn: from Begin to Ready, default 60000, and 1 s of slack; a hung application is not alive because its library is.
    HANDOFF_OPT_READY_MS = 28,
} handoff_options;

// HANDOFF_OPT_MODES
typedef enum handoff_modes {
    // Incumbent and successor must not both hold the data.
    HANDOFF_MODE_EXCLUSIVE = 1,
    // They may: the successor accepts before the incumbent stops, so that somebody accepts at every instant. The incumbent hears
    // nothing of the handoff until then; its only event is a drain with HANDOFF_EVENT_AFTER_COMMIT, and whatever its answer
    // is, HANDOFF_REPLACED follows. There is no seal, no resume, and no lock, so handoff_write_begin lets everybody in: two that write
    // the same data must agree on that among themselves.
    HANDOFF_MODE_OVERLAP = 2,
} handoff_modes;

// HANDOFF_OPT_FORKS
typedef enum handoff_forks {
    // The seal waits for forked children that have neither exec'ed nor exited.
    HANDOFF_FORKS_COUNT = 0,
    // It does not: they never write the data.
    HANDOFF_FORKS_IGNORE = 1,
} handoff_forks;

// handoff_readiness.flags
typedef enum handoff_ready_flags {
    // This process could not serve; detail says why.
    HANDOFF_READY_UNHEALTHY = 1,
    // It will change the format on disk, so that the incumbent could not take over any more.
    HANDOFF_READY_FORMAT_CHANGES = 2,
} handoff_ready_flags;

// handoff_outcome.result
typedef enum handoff_outcomes {
    // The successor serves.
    HANDOFF_OUTCOME_COMMITTED = 1,
    // The incumbent serves.
    HANDOFF_OUTCOME_ROLLED_BACK = 2,
    // It was committed, the successor died, the incumbent serves again.
    HANDOFF_OUTCOME_REVERTED = 3,
    // Nobody was left (or nobody was there yet): a new process was started.
    HANDOFF_OUTCOME_STARTED_COLD = 4,
    // Nothing was disturbed: busy, incompatible, bad input.
    HANDOFF_OUTCOME_REFUSED = 5,
    // Not known at the deadline; the next call goes on with it. Of a cold start: it does not serve yet.
    HANDOFF_OUTCOME_UNDECIDED = 6,
    // Nobody serves: the process that was to start cold could not be started, or has died.
    HANDOFF_OUTCOME_FAILED = 7,
    // resume_from_journal: no handoff was open, and the daemon that serves was adopted.
    HANDOFF_OUTCOME_ADOPTED = 8,
} handoff_outcomes;

// Levels of a log line.
typedef enum handoff_log_levels {
    HANDOFF_LOG_ERROR = 1,
    HANDOFF_LOG_WARN = 2,
    HANDOFF_LOG_INFO = 3,
    HANDOFF_LOG_DEBUG = 4,
    HANDOFF_LOG_TRACE = 5,
} handoff_log_levels;

// One per process: its role, listeners, control socket, lock.
typedef struct handoff handoff;

// Options; copied by whoever takes it.
typedef struct handoff_config handoff_config;

// A supervisor inside a program: the listeners of one service, and its processes.
typedef struct handoff_supervisor handoff_supervisor;

// A log line; level is HANDOFF_LOG_*. Runs only on a thread that is inside a call of the library, one line at a time,
// and may itself call the library as a hook may.
typedef void (*handoff_log_fn)(void *user, int32_t level, const char *target, const char *text);

// Frees user. Called exactly once, also when the call that took it fails.
typedef void (*handoff_destroy_fn)(void *user);

// Whether, and with what, this process could serve. Zero-initialise, set size.
typedef struct handoff_readiness {
    // sizeof(handoff_readiness)
    uint32_t size;
    // HANDOFF_READY_*
    uint32_t flags;
    // Last revision opened, one per shard, exactly as many as were given to handoff_sealed: a lower one, or another number
    // of them, refuses the commit. Without revisions on both sides a lost write can not be noticed.
    const uint64_t *revisions;
    // How many.
    size_t revision_count;
    // For people: where it listens, why it is unhealthy. May be NULL.
    const char *detail;
} handoff_readiness;

// What the application is asked to do. Grows at the end.
typedef struct handoff_event {
    // As filled in by the library.
    uint32_t size;
    // HANDOFF_EVENT_*
    uint32_t kind;
    // For the answer; an answer that comes too late gets HANDOFF_ESTALE and does nothing.
    uint64_t id;
    // Absolute, CLOCK_MONOTONIC; UINT64_MAX: none.
    uint64_t deadline_ns;
    // Borrowed: becomes readable (level) when the event is cancelled or late; -1 if none.
    int32_t cancel_fd;
    // HANDOFF_EVENT_AFTER_COMMIT
    uint32_t flags;
    // The same in every log of this handoff; 0 outside one.
    uint64_t handoff_id;
} handoff_event;

// A hook. It has no result: it answers by a call with event->id, and has failed if it returns without. It must return:
// no exception, longjmp or pthread_exit may leave it.
typedef void (*handoff_hook_fn)(struct handoff *h, const struct handoff_event *event, void *user);

// A connection that the incumbent moved. Grows at the end.
typedef struct handoff_connection {
    // As filled in by the library.
    uint32_t size;
    // Yours.
    int32_t fd;
    // Borrowed until the next call of next_connection.
    const char *name;
    // The same.
    const void *state;
    // Bytes of state.
    size_t state_size;
} handoff_connection;

// How a handoff, a start or an adoption ended. Grows at the end. Times are 0 if it did not come so far.
typedef struct handoff_outcome {
    // As filled in by the library.
    uint32_t size;
    // HANDOFF_OUTCOME_*
    int32_t result;
    // The same in every log of this handoff; 0 for a cold start that nobody's death caused, and without a handoff.
    uint64_t handoff_id;
    // 1, 2, 3 ...: which process of the service serves now; 0 if none does.
    uint64_t generation;
    // The process that serves now, or is about to (HANDOFF_OUTCOME_UNDECIDED); 0 if none does. A number may be given to
    // another process: signal it through pidfd.
    int32_t pid;
    // Its pidfd (pidfd_open(2)), yours, close-on-exec; readable once it is dead; -1 if pid is 0, or no descriptor was left.
    int32_t pidfd;
    // From the spawn until the successor had loaded what needs no data.
    uint64_t warm_ns;
    // The drain.
    uint64_t drain_ns;
    // The seal.
    uint64_t seal_ns;
    // From begin to ready.
    uint64_t ready_ns;
    // What a client could feel: from "accept closed" to committed, or until the incumbent served again; of a commit that
    // was reverted, from the successor's death.
    uint64_t pause_ns;
    // All, from the call to its outcome.
    uint64_t total_ns;
    // For people; with a successor's exit status. Empty if all went well.
    char reason[512];
    // Connections that moved to the successor, if it serves.
    uint64_t connections;
    // Bytes of state that moved to it: blobs, and what belongs to connections.
    uint64_t state_bytes;
} handoff_outcome;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// [signal] The version of the library, "0.1.0".
const char *handoff_version(void);

// [signal] The ABI of the library; compare with HANDOFF_ABI.
uint32_t handoff_abi(void);

// [signal] What a code says, a static text, never NULL. handoff_errmsg knows more.
const char *handoff_strerror(int code);

// [any] Copies the detail of the last call that failed, on whatever thread, as "handoff_done: why, in phase SERVING": which
// call, what was tried, on what, and what to do. What does not fit is cut off at the end.
// Calls of class [signal], handoff_write_begin and handoff_write_end leave it as it is. Returns buf, which always ends
// with NUL; "" if buf is NULL or size is 0.
const char *handoff_errmsg(const struct handoff *h, char *buf, size_t size);

// [owner] Ends everything: the lock is released, and the hooks' destroy functions run. NULL is fine. From inside a hook
// or a log callback the handle is gone when the call that runs it returns; until then every call says HANDOFF_ESTATE.
// In a forked child it closes the child's copies, and the parent keeps its lock.
void handoff_free(struct handoff *h);

// All options at their defaults. NULL: no memory. A configuration belongs to one thread at a time. Which options it may have
// depends on who takes it: handoff_options has them in groups.
struct handoff_config *handoff_config_new(void);

// Sets a string option; copies. EINVAL: unknown to this library, of the other kind, or a value that it can not have.
int handoff_config_set_str(struct handoff_config *c, int32_t option, const char *value);

// Sets an integer option. EINVAL: unknown to this library, of the other kind, or a value that it does not have.
int handoff_config_set_int(struct handoff_config *c, int32_t option, int64_t value);

// Where log lines of handles that are made with c go. They come only on a calling thread, never on the helper's; what
// the helper has to say waits for the next call. All levels come: filter by level. Without one there is no log. fn must
// not be NULL.
int handoff_set_log(struct handoff_config *c, handoff_log_fn fn, void *user, handoff_destroy_fn destroy);

// NULL is fine.
void handoff_config_free(struct handoff_config *c);

// Makes the handle; c may be NULL. HANDOFF_COLD_START or HANDOFF_SUCCESSOR; an error copies its detail to err, which may
// be NULL. Consumes the environment that the supervisor made, HANDOFF_DATA_DIR included: copy what you need of it before.
// It comes first in main, before other threads are there and before descriptors are opened. HANDOFF_EINVAL: c has an option
// that is for a supervisor.
int handoff_detect_role(const struct handoff_config *c, struct handoff **h, char *err, size_t err_size);

// [any] The descriptor of the index-th listener of this name: a new duplicate each time, close-on-exec, yours. name NULL
// = of any name; "x" also finds systemd's "x.socket". HANDOFF_ENOTGIVEN: none at all was given, bind your own;
// HANDOFF_ENONAME: others were. It is O_NONBLOCK unless the supervisor was told ",blocking": poll before you accept, and do
// not change the flag, which all processes share.
int handoff_take_listener(struct handoff *h, const char *name, uint32_t index);

// [any] The name of the index-th listener as given (systemd's too), until handoff_free; NULL past the end.
const char *handoff_listener_name(const struct handoff *h, uint32_t index);

// [owner] Says that everything is loaded that does not need the data. A cold start: no effect.
int handoff_warmed(struct handoff *h);

// [owner] Waits until the data may be opened, and says warmed if you did not; timeout_ms -1 = no limit. HANDOFF_OK with
// the lock held; HANDOFF_PENDING; HANDOFF_EABORTED: exit; HANDOFF_ELOCKED: another process serves this data;
// HANDOFF_ESTOPPED.
int handoff_wait_for_begin(struct handoff *h, int timeout_ms);

// [owner] Says that this process could serve, and waits for the commit; r NULL = healthy, no revisions; timeout_ms -1 =
// no limit. HANDOFF_OK: committed, serve; HANDOFF_PENDING: call it again, with the same r; HANDOFF_EABORTED: exit,
// touching nothing; HANDOFF_ESTOPPED.
int handoff_announce_ready(struct handoff *h, const struct handoff_readiness *r, int timeout_ms);

// [owner] What drains. fn must not be NULL; a second one takes the place of the first. Destroy runs when fn is not needed
// any more, also when this call fails.
int handoff_on_drain(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] What seals; as handoff_on_drain.
int handoff_on_seal(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] What resumes; as handoff_on_drain.
int handoff_on_resume(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] Overlap mode: what takes the connections that the incumbent gives while it drains, with handoff_next_connection;
// without an answer. Otherwise as handoff_on_drain.
int handoff_on_connections(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] What hears HANDOFF_EVENT_PARKED, which has no answer; as handoff_on_drain.
int handoff_on_parked(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] What hears HANDOFF_EVENT_CONFIRMED, which has no answer; as handoff_on_drain.
int handoff_on_confirmed(struct handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy);

// [owner] Blocks, and runs hooks on this thread; an event without a hook fails, if it wants an answer. HANDOFF_REPLACED: _exit,
// write nothing; HANDOFF_STOPPED: shut down as you always did; HANDOFF_ERESUME: exit, the data is not yours.
int handoff_serve(struct handoff *h);

// [any] One descriptor, readable (level) when handoff_dispatch has work, in every phase; poll it, do not read it. Borrowed
// until handoff_free.
int handoff_pollfd(const struct handoff *h);

// [owner] 1 = *event is filled, as much of it as size has room for, at least the 40 bytes of the first version; 0 =
// nothing now. Runs the hook instead, if one is set for the event, and returns 0. HANDOFF_EVENT_REPLACED and
// HANDOFF_EVENT_STOPPED come as events, with or without hooks. Errors as handoff_serve.
int handoff_dispatch(struct handoff *h, struct handoff_event *event, size_t size);

// [signal] Asks to stop: wakes serve, wait_for_begin and announce_ready. Before the seal a handoff is aborted; sealed, it
// goes on, and then serve returns REPLACED, or STOPPED after a resume. Leaves errno as it is.
int handoff_stop(struct handoff *h);

// [event] DRAIN or RESUME succeeded. With HANDOFF_EVENT_AFTER_COMMIT it waits until the successor has all connections that
// were given to it, at most until the event's deadline. HANDOFF_EREFUSED: the drain is done, but the successor is gone, with as many
// of them as handoff_errmsg says. HANDOFF_ESTATE: the event is still open, since connections that came to this process are not
// taken: handoff_next_connection, and give them on; none will follow.
int handoff_done(struct handoff *h, uint64_t event_id);

// [event] SEAL succeeded: all writers are closed, at these revisions, one per shard. Waits for writers that are still
// between write_begin and write_end, and for forked children that have neither exec'ed nor exited (see
// HANDOFF_OPT_FORKS), at most until the event's deadline; then the library unlocks. HANDOFF_ESTATE: some are left, which
// handoff_errmsg names, and the seal has failed.
int handoff_sealed(struct handoff *h, uint64_t event_id, const uint64_t *revisions, size_t count);

// [event] The event could not be done; why is for people, and may be NULL. A hook that returns without an answer has
// failed, too.
int handoff_failed(struct handoff *h, uint64_t event_id, const char *why);

// [event] How far it is, shown to people. HANDOFF_ESTALE once the event is cancelled or late.
int handoff_progress(struct handoff *h, uint64_t event_id, uint64_t done, uint64_t total);

// [signal] HANDOFF_PHASE_*; a hint, not a fence.
int handoff_phase(const struct handoff *h);

// [any] Milliseconds until the event's deadline, rounded up; INT_MAX: it has none; 0: late, cancelled or over.
int handoff_remaining_ms(const struct handoff *h, uint64_t event_id);

// [any] The fence that every write of the data passes: HANDOFF_OK, or HANDOFF_ESEALED. The seal waits for every begin to
// end. A check of the phase before a write is a race; this is not.
int handoff_write_begin(struct handoff *h);

// [any] Leaves the fence; HANDOFF_ESTATE: nobody is inside.
int handoff_write_end(struct handoff *h);

// [event] Inside of a drain or a seal: gives the successor a copy of size bytes at data, in sealed memory (memfd_create(2)), which it
// finds with handoff_get_state. key has 1 to 255 bytes; data may be NULL if size is 0. Waits while the successor has not
// taken what was given before, at most until the event's deadline. Is undone with the handoff: in the next one everything
// is given anew.
// HANDOFF_ESTALE: the event was cancelled or is late, or the successor is gone. HANDOFF_ESTATE: no drain or seal is open.
// HANDOFF_EREFUSED: the successor takes nothing, see HANDOFF_OPT_TRANSFER; in overlap mode always, since it has begun long ago. HANDOFF_EDUPLICATE: the key was used in this handoff.
// HANDOFF_EINVAL, HANDOFF_ETOOBIG: the key is NULL or empty, or longer. HANDOFF_ESYSTEM: no memory.
int handoff_put_state(struct handoff *h, const char *key, const void *data, size_t size);

// [event] As handoff_put_state, for a memfd or a file of yours, of any size, without a copy, and NOT sealed: the successor
// gets a duplicate of fd, with the same offset, from handoff_take_state_fd. fd stays yours: keep the file unchanged until
// RESUME, after which you may write it again, or REPLACED. HANDOFF_EINVAL, too: fd is closed, neither a memfd nor a file, or
// the library's own.
int handoff_put_state_fd(struct handoff *h, const char *key, int fd);

// [owner] After wait_for_begin: where the copy is that the incumbent gave with handoff_put_state, and how many bytes; read-only,
// borrowed, mapped until handoff_free. The same key gives the same place. HANDOFF_ENONAME: it gave none under this key, as
// always in a cold start. HANDOFF_ESTATE: too early. HANDOFF_EINVAL: it gave a descriptor, take that.
int handoff_get_state(struct handoff *h, const char *key, const void **data, size_t *size);

// [owner] After wait_for_begin: the memfd or file that the incumbent gave with handoff_put_state_fd, or the sealed memory of a copy. Yours,
// close-on-exec; once. Write it only when announce_ready has returned 0: until then the incumbent may have to go on with
// it. HANDOFF_ENONAME: it gave none under this key, or it was taken. HANDOFF_ESTATE: too early.
int handoff_take_state_fd(struct handoff *h, const char *key);

// [event] Inside of a drain or a seal: gives the successor a duplicate of a connection, which it gets from
// handoff_next_connection, with a name of 1 to 255 bytes, which need not be its own, and up to 60 KiB of state, such as bytes that
// were read and not yet understood, or not yet written (state may be NULL if size is 0). Any descriptor may be given but a
// directory: TCP, Unix, UDP, pipe, pty, file, eventfd. Modes of the description, as O_NONBLOCK, move with it; a registration
// in epoll does not.
// fd stays yours. Do not read, write, close or shut it down until RESUME, after which everything is as it was. It is the
// successor's after REPLACED, and after PARKED and a RESUME with HANDOFF_EVENT_AFTER_COMMIT: close it then, but a shutdown(2)
// would be felt by both. Waits, and is undone, as handoff_put_state.
// In a drain with HANDOFF_EVENT_AFTER_COMMIT the successor serves, and has the connection from this call on, for good: take fd out
// of your epoll and close it, without a shutdown, and do nothing else with it. If the successor dies, what it was given is
// closed; HANDOFF_EREFUSED then, too: this one was not given, and you may serve it to its end.
// HANDOFF_EDUPLICATE: this number, or another one of the same socket, was given in this handoff. HANDOFF_ETOOBIG: name or
// state is longer. HANDOFF_EINVAL: fd is closed, a directory, or the library's own.
// Others as handoff_put_state.
int handoff_put_connection(struct handoff *h, int fd, const char *name, const void *state, size_t size);

// [any], but one thread at a time. After announce_ready returned 0: 1 = *c is filled with the next connection that the incumbent gave, in its order, as much of it as
// size has room for, at least the 32 bytes of the first version; 0 = no more, as always in a cold start. What is in its queue
// is still to be read: with edge-triggered epoll try at once. A connection that is not taken within ten seconds after the
// first serve or dispatch, after it came (in overlap mode, see HANDOFF_EVENT_CONNECTIONS), or after the one before was taken, is closed, with a warning in the log. HANDOFF_ESTATE: too early:
// until the commit the connections are the incumbent's.
int handoff_next_connection(struct handoff *h, struct handoff_connection *c, size_t size);

// Makes a supervisor, without listeners and processes; c may be NULL, and has HANDOFF_OPT_BUILD_ID, for the journal, and
// handoff_set_log at most: anything else is HANDOFF_EINVAL, as what belongs to a program is given to perform_handoff. An
// error copies its detail to err, which may be NULL.
//
// Raises the soft RLIMIT_NOFILE of this process to the hard one, since it holds listeners and sessions. The processes that
// it starts get the soft limit of before, unless their listeners take half of it or more.
//
// It works only inside of its calls, on their threads; between them the service needs nobody. So a process that was
// replaced stays a zombie until the next call, and is ended there if it has not exited. It needs no SIGCHLD: a program
// may ignore that, or wait for any child, as it likes; then an exit status may be unknown. A program may have several.
int handoff_supervisor_new(const struct handoff_config *c, struct handoff_supervisor **s, char *err, size_t err_size);

// [owner] A socket that each process gets under this name (handoff_take_listener), in the order of these calls, at most
// 4096. Duplicates fd; yours may be closed. Make it non-blocking before: its mode is left as it is. Once a process runs,
// the next one gets it.
//
// HANDOFF_EDUPLICATE: there is one of this name, from an earlier call, or from the daemon that was adopted. The name is
// looked at first, so with fd -1 this asks whether a listener must still be bound. HANDOFF_EINVAL: an empty name, one with
// ':', a control character or no UTF-8, or fd is no socket; HANDOFF_ETOOBIG: a name of more than 255 bytes; HANDOFF_ELIMIT;
// HANDOFF_ESYSTEM: no descriptor left.
int handoff_supervisor_add_listener(struct handoff_supervisor *s, const char *name, int fd);

// [owner] Where the supervisor writes what one that comes after it must know. Before anything else but listeners;
// HANDOFF_ESTATE later. Without a journal a daemon that outlives this program is still found at its control path, but a
// handoff that was open is ended by its processes alone.
//
// The directory must exist, and should be on a tmpfs, since nothing is fsync'ed; it belongs to this user alone, as
// what stands there is believed. Beside it are path.new and, named as the file without its extension, the pages of
// handoffs: two services need two names. HANDOFF_EINVAL: NULL or empty; whether it can be written shows at the first start.
int handoff_supervisor_set_journal(struct handoff_supervisor *s, const char *path);

// [owner] Starts the program of spawn, to replace the process that serves; or cold, if there is none: the first time,
// and when the last one has died. Blocks until the outcome is known. HANDOFF_OK: *o is filled, whatever the outcome is:
// look at o->result.
//
// spawn has HANDOFF_OPT_ARG, and may have the other options for spawn, HANDOFF_OPT_CONTROL_PATH and HANDOFF_OPT_DATA_DIR;
// it is copied. The paths are the daemon's, and the same for all of its processes; without a control path it can be replaced,
// but not adopted. Each process leads a session of its own, has no signal blocked and none ignored, /dev/null as stdin, and
// this process's other streams, user, limits, directory and environment, without LISTEN_* and HANDOFF_*.
//
// size is sizeof *o. o->pidfd is yours: close it. It becomes readable when the process dies, which this supervisor learns
// in its next call: then call this again, and another one is started on the same listeners. Clients wait in their backlog
// meanwhile.
//
// It waits first for what the call before has left: until a process that was replaced has let go of the data, which for a
// cold start is its exit (it is asked to after 10 s, and killed after 20 s), and, up to the deadline of spawn, for the end of
// what was HANDOFF_OUTCOME_UNDECIDED. One that was replaced in overlap mode and serves its last clients is not waited for: it has
// its drain grace, then it is asked to exit, and killed 10 s later. Log lines come while it waits.
//
// HANDOFF_EINVAL: o is NULL or size too small; spawn is NULL, has no HANDOFF_OPT_ARG, or an option or a log that does not
// belong to it. HANDOFF_EBUSY: the last one is still undecided; nothing was disturbed. HANDOFF_EABORTED: cancelled before it
// began. HANDOFF_ESTATE: resume_from_journal has failed. HANDOFF_ESYSTEM. A program that can not be executed is no
// error: HANDOFF_OUTCOME_REFUSED, or _FAILED if nobody served.
int handoff_supervisor_perform_handoff(struct handoff_supervisor *s, const struct handoff_config *spawn, struct handoff_outcome *o, size_t size);

// [owner] Goes on where another supervisor of this service has stopped, which is gone: ends the handoff that was open, and
// adopts the daemon that serves, with its listeners. The first call of all but set_journal, as the daemon has its
// listeners' addresses: bind those of which add_listener says after it that they are not there. Blocks, for some seconds
// if a daemon lives that does not answer, and for a minute at most.
//
// spawn is as for perform_handoff, since a journal has only the processes in it: the paths say where the daemon is found,
// the rest what it is replaced by if it has to be. size is sizeof *o.
//
// That the other one is gone is for the caller to see to: the daemon would be taken from one that lives.
//
// HANDOFF_OK: a daemon of this service lives, and *o tells which and how the open handoff ended; HANDOFF_OUTCOME_ADOPTED if
// there was none. One whose outcome was told is open until the next call of whoever told it: it has the same handoff_id. o->pidfd is yours. HANDOFF_COLD_START: nobody is left, and o is as it was: add the listeners, and call
// perform_handoff. HANDOFF_ELOCKED: a daemon lives and can not be adopted, or cancel ended the wait; nothing was disturbed,
// errmsg names it, and this supervisor can only be freed. HANDOFF_ESTATE: it is not the first call. HANDOFF_EINVAL as
// perform_handoff. HANDOFF_ESYSTEM.
int handoff_supervisor_resume_from_journal(struct handoff_supervisor *s, const struct handoff_config *spawn, struct handoff_outcome *o, size_t size);

// [signal] Gives up the handoff that perform_handoff waits for, if its successor has not committed yet: the incumbent goes
// on, and the outcome tells. Of a cold start it ends the wait only: HANDOFF_OUTCOME_UNDECIDED. It ends the wait of
// resume_from_journal, too, after a second. Without a call under way it does nothing, also not to the next. Leaves errno as it is.
int handoff_supervisor_cancel(struct handoff_supervisor *s);

// [owner] The detail of the last call of s that failed, "" if none did; never NULL. Borrowed until the next call of this
// function on s, or until it is freed. A supervisor that is NULL, busy, of the parent, or broken by a panic, gives
// the static text of its error code.
const char *handoff_supervisor_errmsg(const struct handoff_supervisor *s);

// [owner] Ends the supervisor. The daemon lives on, and serves; the next supervisor adopts it. A successor of an undecided
// handoff is ended, unless it has committed. NULL is fine. From inside a log callback it is gone when the call that runs it
// returns. In a forked child it closes the child's copies, but for those of a call that another thread was in, and kills and
// removes nothing.
void handoff_supervisor_free(struct handoff_supervisor *s);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HANDOFF_H */
