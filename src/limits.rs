//! Every bound and every default time of this project, each with its reason.

use std::time::Duration;

/// A wait for a peer. For the crash matrix, which waits for the end of each of them a hundred times, a fifth.
const fn for_peer(milliseconds: u64) -> Duration {
    Duration::from_millis(if cfg!(feature = "crash-points") { milliseconds / 5 } else { milliseconds })
}

/// Bytes of a message at most: fits the default `SO_SNDBUF` of a Unix socket several times over.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Shards, and so revisions, in a message at most: eight bytes each leave room in a frame.
pub const REVISIONS_MAX: usize = 4096;
/// Bytes of a text for people in a message at most: the C outcome has 512, a log line more.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of a build id at most: an ELF build id has 20, a git hash 40, a version string more.
pub const BUILD_ID_BYTES_MAX: usize = 256;
/// Listeners of a service at most: the kernel's bound for one message is 253 (`SCM_MAX_FD`); inheritance has none.
pub const LISTENERS_MAX: usize = 4096;
/// Sockets of one address (`SO_REUSEPORT`) at most: one for each core of a large machine, and [`LISTENERS_MAX`] leaves room for others.
pub const SOCKETS_MAX: usize = 1024;
/// Bytes of a listener's name at most: as systemd has it (`FileDescriptorName=`).
pub const LISTENER_NAME_BYTES_MAX: usize = 255;
/// Listeners in one message at most: below `SCM_MAX_FD`, and the longest names still fit into a frame.
pub const LISTENERS_IN_MESSAGE_MAX: usize = 200;
/// Connections in one message at most: below `SCM_MAX_FD`, 253.
pub const CONNECTIONS_IN_BATCH_MAX: usize = 250;
/// Messages with connections or state that N has not taken yet, at most. A process without privilege may have as many
/// descriptors on the way as it may have open (unix(7), `ETOOMANYREFS`): four times 250 are fewer than the usual 1024.
pub const BATCHES_UNTAKEN_MAX: u32 = 4;
/// Bytes of a connection's state at most: with the longest name it fits into a frame. What is larger is a blob of state.
pub const CONNECTION_STATE_BYTES_MAX: usize = 60 * 1024;
/// Bytes of the name of a connection, or of the key of a blob, at most: as for a listener.
pub const NAME_BYTES_MAX: usize = 255;
/// Connections that an application has not taken that long after the commit, or after it took the last one, are closed:
/// their clients would wait for ever.
pub const UNTAKEN_GRACE: Duration = Duration::from_secs(10);
/// Between two attempts to send while others of the same user have too many descriptors on the way.
pub const SEND_RETRY: Duration = Duration::from_millis(10);

/// The wait before a daemon that crashed is started again: short enough for clients that wait in the backlog.
pub const RESTART_DELAY_FIRST: Duration = Duration::from_millis(500);
/// The wait doubles up to this: a daemon that can not start must not load the machine.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
/// A daemon that lived that long was healthy: the wait starts anew.
pub const RESTART_HEALTHY: Duration = Duration::from_secs(30);
/// The time in which restarts are counted.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Restarts in [`RESTART_WINDOW`] until the daemon is given up: the backoff alone comes to nine.
pub const RESTARTS_IN_WINDOW_MAX: usize = 10;
/// A daemon that can not say that it serves is taken to be up after this: mistakes in settings show sooner.
pub const START_PROBE: Duration = Duration::from_secs(1);
/// Starts, ends and handoffs of a service that are remembered, at most: a week of daily deployments, or a bad evening.
pub const HISTORY_MAX: usize = 50;
/// Programs that have failed a probation and are remembered, at most: the file stays small.
pub const BAD_PROGRAMS_MAX: usize = 64;
/// From SIGTERM to SIGKILL when a service is stopped.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a stop waits for a cancelled handoff to be undone, until the signals go out all the same.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Bytes of a request line on the control socket: a path and a few numbers.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes that wait for a client that does not read, until it is cut off: several times the status of a thousand units.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Clients of the control socket at the same time: a monitor, a few people, and a script that restarts a hundred units, each by a command.
pub const CLIENTS_MAX: usize = 128;
/// Requests of one client without an answer yet, about; then it is not listened to until there is one.
pub const PENDING_MAX: usize = 64;
/// Of the clients, those that read output: the others are for commands.
pub const READERS_MAX: usize = 32;
/// Bytes of output that wait for such a client, until the rest waits among the lines that are kept.
pub const READER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of output that such a client gets in one turn, about: the others have their turn, too.
pub const READER_TURN_BYTES: usize = 128 * 1024;
/// Of them, those that follow events, at most: others always find room.
pub const FOLLOWERS_MAX: usize = 16;
/// Bytes of events that wait for a follower who does not read; more are dropped, and counted.
pub const FOLLOWER_BYTES_MAX: usize = 128 * 1024;
/// Clients of the metrics listener at the same time: two or three scrapers, and one that hangs.
pub const SCRAPERS_MAX: usize = 16;
/// How long one of them may take for its request and the answer: on a machine that works it is milliseconds.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client of the control socket may be silent without a request under way.
pub const CLIENT_IDLE: Duration = Duration::from_secs(30);
/// Bytes of the daemon's and our own messages that wait for a reader of our standard error; then they are dropped.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// A whole handoff, by default: long enough for a drain, a seal of gigabytes and an initialisation.
pub const HANDOFF_DEADLINE: Duration = Duration::from_secs(300);
/// A drain, by default: requests are shorter; what takes longer is better transferred.
pub const DRAIN_GRACE: Duration = Duration::from_secs(60);
/// From exec to Hello, by default: the dynamic loader of a large binary on a cold disk.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// From Begin to Ready, by default: an application can hang although its library is alive.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// From Committed to Serving: nothing but a compare-and-swap, a rename and the application's return to `serve`.
pub const SERVING_TIMEOUT: Duration = for_peer(10_000);
/// Without any frame from a peer that owes one: the peer is stopped or its machine is swapping.
pub const LIVENESS: Duration = for_peer(10_000);
/// Between heartbeats: several fit into [`LIVENESS`].
pub const HEARTBEAT: Duration = for_peer(2_000);
/// Between two reports of progress: people see no more, and a hook that counts every record must not keep S from its work.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes that S has not read, with the kernel's own, beyond which only what a handoff needs is sent: the rest of the queue
/// (`net.core.wmem_default`, 208 KiB) stays free for that.
pub const UNREAD_BYTES_MAX: usize = 64 * 1024;
/// For an answer that is already on the wire when its deadline passes.
pub const SLACK: Duration = for_peer(1_000);
/// From the end of a session to the death of its process: the kernel closes descriptors first.
pub const DEATH_AFTER_END: Duration = for_peer(1_000);
/// A successor that was asked to go before it had the data, until it is killed.
pub const ABORT_GRACE: Duration = for_peer(2_000);
/// A retired incumbent that does not exit, until it gets SIGTERM, and from there to SIGKILL.
pub const RETIRE_GRACE: Duration = for_peer(10_000);
/// A reserve that is not needed any more and does not say so, until it gets SIGTERM, and from there to SIGKILL: its data is with its
/// successor, and an operator waits.
pub const RESERVE_GRACE: Duration = for_peer(2_000);
/// A reserve that was not heard of for so long could not take over: two of its heartbeats, and some slack.
pub const RESERVE_SILENCE: Duration = for_peer(5_000);
/// Processes in overlap mode that were replaced and serve their last clients, by default: with the one that serves and one that
/// starts, the machine must have room for four.
pub const MAX_DRAINING: usize = 2;
/// Frames of one peer that are read in one go: many times more than a queue of the default size holds, so what was there
/// when the reading began is read, and a peer that sends without end keeps nobody from his work.
pub const FRAMES_READ_MAX: usize = 4096;
/// The first wait for a daemon that can not be reached at its control path, which doubles from attempt to attempt: one that
/// has just committed is there at once.
pub const ADOPT_RETRY_FIRST: Duration = Duration::from_millis(5);
/// The longest such wait.
pub const ADOPT_RETRY_MAX: Duration = Duration::from_secs(1);
/// How long an incumbent that should go on may stay without a session before the outcome is undecided: as [`LIVENESS`].
pub const ADOPTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restarted supervisor waits for somebody at the control path to say that he is a daemon.
pub const RESUME_UNREACHED: Duration = Duration::from_secs(10);
/// How long it waits for a control path that a daemon makes anew, see [`CONTROL_WATCH`].
pub const RESUME_WITHOUT_PATH: Duration = Duration::from_secs(4);
/// How often a daemon without a supervisor looks whether its control path is still there.
pub const CONTROL_WATCH: Duration = Duration::from_secs(1);
/// How long it waits for one that is, or holds the lock, or for a handoff that is being ended: longer than a slow resume.
pub const RESUME_TIMEOUT: Duration = Duration::from_secs(60);
/// After what time, and how often, it looks meanwhile whether it is still wanted: an operator's patience.
pub const RESUME_LOOK: Duration = Duration::from_secs(1);
/// How long a daemon that was not ready when its supervisor was killed has at least to give the next one its sign.
pub const ADOPTED_READY: Duration = Duration::from_secs(5);
/// How long a supervisor waits at its start until one of its name that was killed is gone, and the children that it was about to execute.
pub const SUPERVISOR_GONE: Duration = Duration::from_secs(2);
/// Connections to a control path that have not said what for, at most: one is expected.
pub const ASKING_MAX: usize = 8;
/// Between two attempts at a lock that a living process holds against the rules.
pub const LOCK_RETRY: Duration = Duration::from_millis(50);
/// How long a successor or a cold start insists on a lock that somebody holds.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts to put the control path into its place after a commit.
pub const CONTROL_RETRY: Duration = Duration::from_millis(200);
/// Between two attempts to accept on a control path while there is no descriptor left for it.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// User code that runs for longer is watched by the helper thread; shorter, and waking that thread costs more.
pub const ATTEND_AFTER: Duration = Duration::from_millis(1);
/// Log lines at most that wait for the application's next call: a handoff has some dozens.
pub const LOG_LINES_MAX: usize = 1024;
/// Backlog of the listeners that a supervisor binds: clients that connect during a pause wait in it.
/// The kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: u32 = 65_535;
/// Clients that should find room in a backlog during a pause, if nobody said another number: what kernels allow by
/// default (since 5.4). If `net.core.somaxconn` allows fewer, that is said.
pub const BACKLOG_EXPECTED: u32 = 4096;
/// Of a daemon's captured output, how much that was read stays in its file: an operator may want to look.
pub const OUTPUT_KEPT_BYTES: u64 = 1024 * 1024;
/// Captured output that is read of one stream in one turn at most: a daemon that writes without end must not keep S from its
/// work, and a hundred of them must not fill its memory.
pub const OUTPUT_READ_BYTES_MAX: usize = 256 * 1024;
/// What the services of a program do in one turn of its loop, before commands are heard again: with both halves of it, a status is answered
/// within some tens of milliseconds also while a thousand services start.
pub const TURN_SLICE: Duration = Duration::from_millis(10);
/// Captured output of one stream that was not read yet, at most: what is more is left out, since its file is best on a tmpfs, and
/// takes memory from everybody.
pub const OUTPUT_BACKLOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Between two looks at the output of processes that can not be watched, for want of inotify instances: soon enough for people.
pub const OUTPUT_POLL: Duration = Duration::from_millis(200);
/// A line of output that is longer is cut into parts of this size.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes and lines of captured output in the reason of an outcome at most: a panic message with a short backtrace.
pub const REASON_BYTES_MAX: usize = 4096;
/// See [`REASON_BYTES_MAX`].
pub const REASON_LINES_MAX: usize = 20;
/// Between two looks at the page while a retired incumbent exits, or a successor that has committed can not be heard.
pub const PAGE_POLL: Duration = Duration::from_millis(20);
/// Events that nobody has fetched: a caller that only ever blocks in `perform_handoff` does not.
pub const EVENTS_MAX: usize = 1024;
/// How often [`OUTPUT_READ_BYTES_MAX`] is read when a process is dead: all of [`OUTPUT_BACKLOG_BYTES_MAX`], and no more, since
/// what it has left behind may write for ever.
pub const OUTPUT_LAST_READS_MAX: usize = 64;
/// Descriptors that the library opens for itself, with those that a handoff brings, at most.
pub const OWN_DESCRIPTORS_MAX: usize = 32;
/// Listeners that get their backlog again while the incumbent seals, at most: so many hide behind the seal. More, and they
/// get it after the handoff only.
pub const REPAIRED_IN_PAUSE_MAX: usize = 64;
/// Bytes of a message to `NOTIFY_SOCKET` at most: as systemd has it, a page.
pub const NOTIFICATION_BYTES_MAX: usize = 4096;
/// Messages to `NOTIFY_SOCKET` that are read in one turn: a daemon that sends without end keeps nobody from his work.
pub const NOTIFICATIONS_READ_MAX: usize = 64;
/// Characters of a daemon's `STATUS=` that are kept: a line on a terminal, and some more.
pub const STATUS_CHARS_MAX: usize = 256;
/// Descriptors that are kept for a daemon that does not link the library (`FDSTORE=1`), at most: few need more than a dozen,
/// and S itself must stay far from its limit.
pub const FDSTORE_MAX: usize = 128;
/// Messages to `NOTIFY_SOCKET` that are refused, and logged, in [`REFUSALS_INTERVAL`]; of others, and of the same again, there is a
/// count.
pub const REFUSALS_LOGGED_MAX: u32 = 8;
/// See [`REFUSALS_LOGGED_MAX`]: a line every few seconds fills no disk.
pub const REFUSALS_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks whether a daemon answers its health probe: the end of its start is seen at once, and it costs it nothing.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// How long one attempt of a health probe may take: a daemon that answers later is asked anew.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two health probes of a process on probation: people do not wait for longer than some seconds.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether such a probe has been answered. Each look reads the table of all connections, and nobody waits for it.
pub const HEALTH_LOOK: Duration = Duration::from_millis(50);
/// Probes in a row that such a process may fail, until it is no good: one alone may be a pause for its own cleaning up.
pub const HEALTH_FAILURES_MAX: u32 = 3;
/// The first look whether a question to a unit was answered; the time between two of them doubles up to [`HEALTH_LOOK`].
pub const HEALTH_LOOK_FIRST: Duration = Duration::from_millis(2);
/// From the start of a unit's process to the first question whether it is well; until its first good answer the wait doubles.
pub const CHECK_FIRST: Duration = Duration::from_millis(100);
/// How much longer than its probation a process has a reserve, if it is asked whether it is well: the answer that is waited for then
/// takes six seconds at most if it is no, but a busy machine looks late.
pub const HEALTH_VERDICT: Duration = Duration::from_secs(30);
/// Orphans that are reaped in one turn: one that makes them without end keeps nobody from his work.
pub const ORPHANS_REAPED_MAX: usize = 1024;
/// Until the next look for orphans, if one of our own dead children, which somebody is about to reap, hides them.
pub const REAP_RETRY: Duration = Duration::from_millis(100);
/// How much longer our own manager (systemd) must wait, each time that a start, a stop or a handoff is seen to go on.
pub const EXTENSION: Duration = Duration::from_secs(30);
/// How often it is told: a loop that is late for two of them is no reason to kill it.
pub const EXTENSION_INTERVAL: Duration = Duration::from_secs(10);
/// Until a message to our manager is sent again for which its queue had no room.
pub const MANAGER_RETRY: Duration = Duration::from_millis(100);
/// Messages that wait for our manager at most, then they are dropped: one that does not read for so long is none.
pub const MANAGER_MESSAGES_MAX: usize = 256;
/// Bytes of a file of units at most: a thousand units have less, and a mistaken path may lead to anything.
pub const UNIT_FILE_BYTES_MAX: usize = 1024 * 1024;
/// How long a stop tries to look for what a process has left, if there is no descriptor for it: then it has failed.
pub const BLIND_GRACE: Duration = Duration::from_secs(2);
/// Between two looks for what a service has left that has ended all the same.
pub const ENDED_LOOK: Duration = Duration::from_millis(500);
/// Between two looks whether processes that were killed are gone: few take longer than one.
pub const DYING_LOOK: Duration = Duration::from_millis(10);
/// Bytes of a file of variables at most: the kernel takes two megabytes of environment and arguments together.
pub const ENV_FILE_BYTES_MAX: usize = 1024 * 1024;
/// From the start of a unit's process until it must be ready, by default.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two questions whether a unit is well, by default: a human notices after that time, too.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long such an answer may take, by default.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions in a row without a good answer until a unit is not well, by default: one alone may be a pause.
pub const CHECK_RETRIES: u32 = 3;
/// Lines of a unit's output that are kept, by default: more than anybody reads on a screen.
pub const LOG_LINES: usize = 10_000;
/// Bytes of a unit's output that are kept, by default: a hundred units stay under a hundred megabytes.
pub const LOG_BYTES: usize = 1024 * 1024;
/// For a new program of the supervisor that is run beside it, to say that it can go on: a start and a look at some megabytes.
pub const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a new program of the supervisor to go on, from its execve(2): what it does then takes milliseconds, and nothing else happens meanwhile.
pub const RESTORE_TIMEOUT: Duration = for_peer(10_000);
/// How long a self-upgrade waits until nothing is under way that it would disturb.
pub const SELF_UPGRADE_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a file of a unit's output until another one is begun, by default.
pub const LOG_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Such files of a unit, by default.
pub const LOG_FILES: usize = 4;
/// After a file of output could not be written, until that is tried again: a full disk is not asked for each line.
pub const LOG_RETRY: Duration = Duration::from_secs(1);
/// After the state of a supervisor could not be written down, until that is tried again: as [`LOG_RETRY`].
pub const STATE_RETRY: Duration = Duration::from_secs(1);
/// How long a supervisor may take to stop all its services before it kills what is left, by default: as systemd has it for one.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(90);
/// After that, until what is still there is looked at again.
pub const SHUTDOWN_LOOK: Duration = Duration::from_secs(1);
