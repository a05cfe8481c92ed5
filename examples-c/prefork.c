/* prefork.c - a prefork server that can be replaced: a master that never accepts, and workers that do nothing else.
 *
 * It counts, in the file "counter" of $HANDOFF_DATA_DIR.  One request per line, many per connection:
 *
 *   INC    ->  OK <n>, once it is on disk; no two requests get the same n     PING  ->  PONG <worker's pid> <build>
 *   COUNT  ->  COUNT <n>                                                      else  ->  ERR <why>
 *
 * A connection ends as in kv.c: a reply that ends in " CLOSE" is the last one, a line "CLOSE" comes instead of one; what
 * has no reply then was not executed, and the client asks again on a new connection.
 *
 * The handle is the master's: in a worker every call would say HANDOFF_EFORKED.  So the workers hear of a drain through
 * the leash, a pipe to which nobody ever writes: its end is the sign to finish, whether the master has closed it
 * or was killed.  The drain is answered from the branch that reaps the last worker.
 *
 * HANDOFF_OPT_FORKS stays at its default, HANDOFF_FORKS_COUNT, because the workers write the data: were one still
 * there at the seal, the seal would fail, and the successor would not write beside it.  A server whose workers write
 * nothing of what the lock protects would set HANDOFF_FORKS_IGNORE. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef BUILD
#define BUILD "dev"
#endif

enum {
    WORKERS = 4,
    SLOTS = 64, /* workers that finish have one, too: after a resume there are more than WORKERS */
    LINE_BYTES_MAX = 256,
    FIRST_REQUEST_MS = 20, /* whoever has just connected is about to ask */
    IDLE_MS = 5000,        /* for a client to ask: it has the worker for itself */
    HANG_UP_MS = 1000,     /* for a client that was told to hang up */
    SEND_S = 5,            /* for a client to read its reply */
    REFORK_MS = 100,       /* a worker that always crashes must not eat the machine */
    STOP_MS = 10000,       /* for the workers to finish when nothing else says how long they may take */
};

/* ---- the data: one number, mapped by the master, and so shared with the workers ---- */
static int data_dir = -1;
static _Atomic uint64_t *counter; /* NULL while it is not ours to write */

static bool open_counter(void) {
    if (counter) return true; /* the handoff was given up before the seal */
    int fd = openat(data_dir, "counter", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    /* With its blocks: a write to a hole would end in SIGBUS on a full disk. */
    int error = fd < 0 ? errno : posix_fallocate(fd, 0, sizeof *counter);
    void *map = MAP_FAILED;
    if (!error && fsync(fd) == 0 && fsync(data_dir) == 0)
        map = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) counter = map;
    else fprintf(stderr, "prefork: counter: %s\n", strerror(error ? error : errno));
    if (fd >= 0) close(fd);
    return counter;
}

/* Also when a worker was killed between its count and its sync: that is made good here. */
static bool close_counter(uint64_t *revision) {
    if (msync(counter, sizeof *counter, MS_SYNC) != 0) return false;
    *revision = *counter;
    munmap(counter, sizeof *counter);
    counter = NULL;
    return true;
}

/* ---- a worker: one client at a time, until the leash ends ---- */
static int listener = -1, leash[2] = {-1, -1};

/* poll() that goes on after a signal; whether the first one has something. */
static bool wait_for(struct pollfd *p, nfds_t count, int timeout_ms) {
    while (poll(p, count, timeout_ms) < 0 && errno == EINTR) {}
    return p[0].revents;
}

static bool is_to_finish(void) { return wait_for(&(struct pollfd){.fd = leash[0], .events = POLLIN}, 1, 0); }

/* False: it was silent for too long, or we are to finish and it has nothing to ask. */
static bool request_comes(int client, bool asked) {
    struct pollfd p[] = {{.fd = client, .events = POLLIN}, {.fd = leash[0], .events = POLLIN}};
    return wait_for(p, 2, IDLE_MS) || (p[1].revents && !asked && wait_for(p, 1, FIRST_REQUEST_MS));
}

static void execute(const char *line, char *reply, size_t size) {
    uint64_t n;
    if (strcmp(line, "INC") == 0) {
        n = atomic_fetch_add(counter, 1) + 1;
        if (msync(counter, sizeof *counter, MS_SYNC) == 0) snprintf(reply, size, "OK %" PRIu64, n);
        else snprintf(reply, size, "ERR not on disk: %s", strerror(errno));
    } else if (strcmp(line, "COUNT") == 0) {
        snprintf(reply, size, "COUNT %" PRIu64, *counter);
    } else if (strcmp(line, "PING") == 0) {
        snprintf(reply, size, "PONG %d " BUILD, (int)getpid());
    } else {
        snprintf(reply, size, "ERR not a request");
    }
}

static bool say(int client, const char *line) {
    return send(client, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line);
}

/* False: it has hung up. */
static bool serve_client(int client) {
    char in[LINE_BYTES_MAX], reply[LINE_BYTES_MAX];
    size_t size = 0;
    bool asked = false;
    for (;;) {
        char *end = memchr(in, '\n', size);
        if (end) {
            *end++ = '\0';
            execute(in, reply, sizeof reply - sizeof " CLOSE\n");
            asked = true;
            bool last = is_to_finish();
            if (!say(client, strcat(reply, last ? " CLOSE\n" : "\n"))) return false;
            if (last) return true;
            size -= (size_t)(end - in);
            memmove(in, end, size);
        } else if (size == sizeof in) {
            return say(client, "ERR the line is too long CLOSE\n");
        } else if (request_comes(client, asked)) {
            ssize_t got = recv(client, in + size, sizeof in - size, 0);
            if (got <= 0) return false;
            size += (size_t)got;
        } else {
            return say(client, "CLOSE\n");
        }
    }
}

static void work(void) {
    struct pollfd p[] = {{.fd = leash[0], .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    char rest[LINE_BYTES_MAX];
    while (!wait_for(p, 2, -1)) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* another worker may have been faster */
        if (client < 0) continue;
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = SEND_S}, sizeof(struct timeval));
        /* It closes first: a close with a request on the wire would be a reset. */
        struct pollfd hang_up = {.fd = client, .events = POLLIN};
        if (serve_client(client)) while (wait_for(&hang_up, 1, HANG_UP_MS) && recv(client, rest, sizeof rest, 0) > 0) {}
        close(client);
    }
}

/* ---- the master ---- */
static handoff *h;
static int wake[2]; /* the self-pipe: a child has ended */
static struct { pid_t pid; bool finishes; } slot[SLOTS];
static bool serving;
static int64_t refork_at = INT64_MAX, kill_at = INT64_MAX;
static uint64_t drain; /* the drain that waits for its answer */
static bool stopping;

static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }

static void on_sigchld(int signal) {
    int error = errno;
    (void)signal;
    if (write(wake[1], "", 1) < 0) {} /* full: it is awake anyhow */
    errno = error;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int alive(bool only_those_that_serve) {
    int count = 0;
    for (int i = 0; i < SLOTS; i++) count += slot[i].pid > 0 && !(only_those_that_serve && slot[i].finishes);
    return count;
}

/* Forks what is missing; what can not be forked now is tried again. */
static void fork_workers(void) {
    refork_at = INT64_MAX;
    for (int i = 0, missing = WORKERS - alive(true); missing > 0; i++) {
        pid_t pid = -1;
        while (i < SLOTS && slot[i].pid > 0) i++;
        if (i < SLOTS) pid = fork();
        if (pid == 0) {
            close(leash[1]); /* the master's end, which must not stay open in its children */
            signal(SIGTERM, SIG_DFL);
            signal(SIGCHLD, SIG_DFL);
            work();
            _exit(0); /* no atexit, no flush: what is buffered is the master's */
        }
        if (pid < 0) {
            refork_at = now_ms() + REFORK_MS;
            return;
        }
        slot[i].pid = pid;
        slot[i].finishes = false;
        missing--;
    }
}

static bool start_workers(void) {
    if (serving) return true;
    if (pipe2(leash, O_CLOEXEC) != 0) return false;
    serving = true;
    fork_workers();
    return true;
}

/* Whoever does not finish in time is killed: one slow client is no reason to fail a handoff. */
static void finish_workers(int64_t patience_ms) {
    kill_at = now_ms() + patience_ms;
    refork_at = INT64_MAX;
    serving = false;
    for (int i = 0; i < SLOTS; i++) slot[i].finishes = true;
    close(leash[0]);
    close(leash[1]);
}

static void reap(void) {
    char bytes[64];
    int status;
    while (read(wake[0], bytes, sizeof bytes) > 0) {}
    for (int i = 0; i < SLOTS; i++) {
        if (slot[i].pid <= 0 || waitpid(slot[i].pid, &status, WNOHANG) != slot[i].pid) continue;
        if (WIFSIGNALED(status)) fprintf(stderr, "prefork: worker %d: signal %d\n", (int)slot[i].pid, WTERMSIG(status));
        if (!slot[i].finishes) refork_at = now_ms() + REFORK_MS;
        slot[i].pid = 0;
    }
}

/* What is due: new workers, an end to those that do not finish, the answer to the drain. */
static void do_what_is_due(void) {
    if (now_ms() >= refork_at) fork_workers();
    if (now_ms() >= kill_at) {
        for (int i = 0; i < SLOTS; i++) if (slot[i].pid > 0) kill(slot[i].pid, SIGKILL);
        kill_at = INT64_MAX;
    }
    if (drain && alive(false) == 0) {
        kill_at = INT64_MAX;
        handoff_done(h, drain);
        drain = 0;
    }
}

static void handle(const handoff_event *e) {
    static uint64_t revision;
    switch (e->kind) {
    case HANDOFF_EVENT_DRAIN:
        drain = e->id;
        finish_workers((int64_t)handoff_remaining_ms(h, e->id) * 3 / 4);
        break;
    case HANDOFF_EVENT_SEAL:
        if (close_counter(&revision)) handoff_sealed(h, e->id, &revision, 1);
        else handoff_failed(h, e->id, "the counter can not be synced");
        break;
    case HANDOFF_EVENT_RESUME: /* those of the old generation that still finish may do so beside the new ones */
        drain = 0;
        kill_at = INT64_MAX;
        if (open_counter() && start_workers()) handoff_done(h, e->id);
        else handoff_failed(h, e->id, "can not serve again");
        break;
    case HANDOFF_EVENT_REPLACED: _exit(0);
    case HANDOFF_EVENT_STOPPED:
        stopping = true;
        if (serving) finish_workers(STOP_MS);
        break;
    }
}

static int complain(const char *why) { return fprintf(stderr, "prefork: %s\n", why), 1; }

int main(void) {
    char why[512];
    const char *dir = getenv("HANDOFF_DATA_DIR");
    if (!dir || !(dir = strdup(dir))) return complain("HANDOFF_DATA_DIR must be set");
    handoff_config *config = handoff_config_new();
    handoff_config_set_str(config, HANDOFF_OPT_BUILD_ID, BUILD);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return complain(why);
    handoff_config_free(config);
    if ((data_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) return complain(strerror(errno));
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) return complain(strerror(errno));
    signal(SIGTERM, on_sigterm);
    signal(SIGCHLD, on_sigchld);
    if ((listener = handoff_take_listener(h, NULL, 0)) < 0 || handoff_wait_for_begin(h, -1) != HANDOFF_OK)
        return complain(handoff_errmsg(h, why, sizeof why));
    if (!open_counter()) return 1;
    uint64_t revision = *counter;
    handoff_readiness ready = {.size = sizeof ready, .revisions = &revision, .revision_count = 1};
    if (handoff_announce_ready(h, &ready, -1) != HANDOFF_OK) return complain(handoff_errmsg(h, why, sizeof why));
    if (!start_workers()) return complain(strerror(errno));

    struct pollfd p[] = {{.fd = handoff_pollfd(h), .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
    while (!stopping || alive(false) > 0) {
        int64_t due = refork_at < kill_at ? refork_at : kill_at, left = due - now_ms();
        if (poll(p, 2, due == INT64_MAX ? -1 : left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left) < 0) continue;
        if (p[1].revents) reap();
        int got = 0;
        handoff_event e;
        while (!stopping && p[0].revents && (got = handoff_dispatch(h, &e, sizeof e)) > 0) handle(&e);
        if (got < 0) return complain(handoff_errmsg(h, why, sizeof why));
        do_what_is_due();
    }
    if (!close_counter(&revision)) return complain(strerror(errno));
    handoff_free(h);
    return 0;
}
