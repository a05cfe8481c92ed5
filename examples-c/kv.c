/* kv.c - a threaded key-value store with an append-only log that can be replaced while it runs.
 *
 *   kv [DATA_DIR [PORT]]   default: $HANDOFF_DATA_DIR; the listener "kv" that was given, else 127.0.0.1 and PORT or any
 *
 * One request per line, many per connection; keys and values are words without blanks.
 *
 *   SET key value  ->  OK <revision>, once it is on disk      COUNT  ->  COUNT <keys> <revision>
 *   GET key        ->  VALUE <value>, or NONE                 PING   ->  PONG <pid> <build>
 *   LINEAGE        ->  LINEAGE <builds that served before, and this one>
 *   anything else  ->  ERR <why>
 *
 * A successor gets the connections, each with what was read of it and not executed: a client that keeps its connection
 * does not notice.  After a rollback the store goes on with them itself, unless the successor may have talked to them.
 *
 * How a connection ends when the store is stopped, so that no request is lost and none is executed twice: a reply that
 * ends in " CLOSE" is the last one; a line that is only "CLOSE" comes instead of a reply.  What has no reply then
 * was not executed: the client hangs up, connects again, and asks again.  The store waits for the hang-up,
 * because a close with a request on the wire would be a reset. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef BUILD
#define BUILD "dev"
#endif

enum {
    LINE_BYTES_MAX = 4096, BUCKETS = 1 << 16, BACKLOG = 4096,
    FIRST_REQUEST_MS = 20, /* whoever has just connected is about to ask */
    HANG_UP_MS = 1000,     /* for a client that was told to hang up */
    SEND_S = 5,            /* for a client to read its reply */
    MARGIN_MS = 50,        /* before the end of the grace: a late answer is none */
};

/* ---- the store ---- */
struct entry {
    struct entry *next;
    uint64_t revision;
    char *value, key[]; /* one piece of memory */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t synced;
    int dir, log;      /* log is -1 while it is not ours to write */
    off_t size;        /* of the log, as far as we know it */
    uint64_t revision; /* of its last line */
    uint64_t durable;  /* of its last line that is on disk */
    bool syncing;      /* one thread is in fdatasync, for all that wait */
    bool broken;       /* a write or a sync failed: nobody knows what is on disk, so nothing more is accepted */
    size_t keys;
    struct entry *table[BUCKETS];
} store = {.lock = PTHREAD_MUTEX_INITIALIZER, .synced = PTHREAD_COND_INITIALIZER, .log = -1};

static uint32_t fnv1a(const char *text) {
    uint32_t hash = 2166136261u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash;
}

static struct entry **find(const char *key) {
    struct entry **at = &store.table[fnv1a(key) % BUCKETS];
    while (*at && strcmp((*at)->key, key) != 0) at = &(*at)->next;
    return at;
}

/* Requests that were synced together come here in any order: the highest revision wins. */
static void put(const char *key, const char *value, uint64_t revision) {
    struct entry **at = find(key), *old = *at;
    if (old && old->revision > revision) return;
    struct entry *e = malloc(sizeof *e + strlen(key) + strlen(value) + 2);
    if (!e) abort(); /* the log has everything, and whoever started us starts us again */
    *e = (struct entry){.next = old ? old->next : NULL, .revision = revision};
    e->value = strcpy(strcpy(e->key, key) + strlen(key) + 1, value);
    store.keys += !old;
    *at = e;
    free(old);
}

/* ---- the log: a line for each SET, "<checksum> <revision> <key> <value>" ---- */
/* False: damaged, or not the next line. */
static bool replay(char *line, size_t size) {
    uint32_t sum;
    uint64_t revision;
    int body, key, value = 0;
    line[size - 1] = '\0';
    if (sscanf(line, "%8" SCNx32 " %n%" SCNu64 " %n%*s %n", &sum, &body, &revision, &key, &value) != 2 || value == 0 ||
        sum != fnv1a(line + body) || revision != store.revision + 1)
        return errno = EBADMSG, false;
    line[value - 1] = '\0';
    put(line + key, line + value, revision);
    store.revision = revision;
    store.size += (off_t)size;
    return true;
}

/* Reads what we do not know yet: at a start all, after a resume what a successor wrote before it died. */
static bool catch_up(int log) {
    int copy = dup(log);
    FILE *in = copy < 0 ? NULL : fdopen(copy, "r");
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    bool ok = in && fseeko(in, store.size, SEEK_SET) == 0;
    while (ok && (size = getline(&line, &capacity, in)) > 0) /* a torn last line was never acknowledged: cut it off */
        ok = line[size - 1] == '\n' ? replay(line, (size_t)size) : ftruncate(log, store.size) == 0;
    free(line);
    return in && !ferror(in) && fclose(in) == 0 && ok;
}

static bool open_log(void) {
    bool ok = true;
    pthread_mutex_lock(&store.lock);
    if (store.log < 0) { /* else: the handoff was given up before the seal */
        int log = openat(store.dir, "kv.log", O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        /* The last lines may be in memory only, if their writer was killed before its sync. */
        ok = log >= 0 && catch_up(log) && fdatasync(log) == 0 && (store.size > 0 || fsync(store.dir) == 0);
        if (!ok) fprintf(stderr, "kv: kv.log, at byte %jd: %s\n", (intmax_t)store.size,
                         errno == EBADMSG ? "damaged" : strerror(errno));
        store.durable = store.revision;
        store.log = ok ? log : -1;
    }
    pthread_mutex_unlock(&store.lock);
    return ok;
}

static bool close_log(void) {
    pthread_mutex_lock(&store.lock);
    while (store.syncing) pthread_cond_wait(&store.synced, &store.lock);
    store.broken = store.broken || fdatasync(store.log) != 0 || close(store.log) != 0;
    if (!store.broken) {
        store.log = -1;
        store.durable = store.revision;
    }
    pthread_cond_broadcast(&store.synced);
    pthread_mutex_unlock(&store.lock);
    return !store.broken;
}

/* Writes, and waits until it is on disk; 0: failed.  Whoever finds nobody in fdatasync syncs for all that wait. */
static uint64_t append(const char *key, const char *value) {
    char body[LINE_BYTES_MAX + 32], line[LINE_BYTES_MAX + 64];
    uint64_t revision = store.revision + 1;
    snprintf(body, sizeof body, "%" PRIu64 " %s %s", revision, key, value);
    int size = snprintf(line, sizeof line, "%08" PRIx32 " %s\n", fnv1a(body), body);
    if (store.broken) return 0;
    ssize_t written = write(store.log, line, (size_t)size);
    if (written != size) { /* most likely a full disk: take back what is there of the line, and go on */
        int why = written < 0 ? errno : ENOSPC;
        store.broken = ftruncate(store.log, store.size) != 0;
        return errno = why, 0;
    }
    store.revision = revision;
    store.size += size;
    while (store.durable < revision && !store.broken) {
        if (store.syncing) {
            pthread_cond_wait(&store.synced, &store.lock);
            continue;
        }
        uint64_t synced = store.revision;
        store.syncing = true;
        pthread_mutex_unlock(&store.lock);
        bool ok = fdatasync(store.log) == 0;
        pthread_mutex_lock(&store.lock);
        store.syncing = false;
        store.broken |= !ok;
        store.durable = ok ? synced : store.durable;
        pthread_cond_broadcast(&store.synced);
    }
    if (store.durable < revision) return 0;
    put(key, value, revision);
    return revision;
}

/* ---- requests ---- */
static handoff *h;
static char lineage[1024] = BUILD; /* state that is in no file: each successor gets it, and adds itself */

/* The last of it, if it becomes too long. */
static void inherit_lineage(void) {
    const void *before;
    size_t size, most = sizeof lineage - sizeof " " BUILD;
    if (handoff_get_state(h, "lineage", &before, &size) != HANDOFF_OK) return; /* a cold start */
    size_t cut = size > most ? size - most : 0;
    snprintf(lineage, sizeof lineage, "%.*s " BUILD, (int)(size - cut), (const char *)before + cut);
}

static struct {
    int listener;
    int drain_fd; /* eventfd, readable while we drain: wakes the acceptor and the idle clients */
    int gone_fd;  /* eventfd: the last thread of a client has ended */
    atomic_bool draining;
    atomic_bool stopping; /* nobody comes after us */
    atomic_int threads;
    pthread_t acceptor;
    pthread_attr_t detached;
    pthread_mutex_t lock;
    struct client *parked; /* clients without a thread: they are being moved */
} server = {.listener = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/* Fills in the reply.  False: not executed, since the data is not ours any more. */
static bool execute(char *line, char *reply, size_t size) {
    char *word[4], *rest, *next = strtok_r(line, " \r", &rest);
    int words = 0;
    for (; next && words < 4; next = strtok_r(NULL, " \r", &rest)) word[words++] = next;
    pthread_mutex_lock(&store.lock);
    bool ours = store.log >= 0;
    if (ours && words == 3 && strcmp(word[0], "SET") == 0) {
        uint64_t revision = append(word[1], word[2]);
        if (revision) snprintf(reply, size, "OK %" PRIu64, revision);
        else snprintf(reply, size, "ERR not written: %s", store.broken ? "the log is broken" : strerror(errno));
    } else if (ours && words == 2 && strcmp(word[0], "GET") == 0) {
        struct entry *e = *find(word[1]);
        snprintf(reply, size, "%s%s", e ? "VALUE " : "NONE", e ? e->value : "");
    } else if (words == 1 && strcmp(word[0], "COUNT") == 0) {
        snprintf(reply, size, "COUNT %zu %" PRIu64, store.keys, store.durable);
    } else if (words == 1 && strcmp(word[0], "PING") == 0) {
        snprintf(reply, size, "PONG %d " BUILD, (int)getpid());
    } else if (words == 1 && strcmp(word[0], "LINEAGE") == 0) {
        snprintf(reply, size, "LINEAGE %s", lineage);
    } else {
        snprintf(reply, size, "ERR not a request");
    }
    pthread_mutex_unlock(&store.lock);
    return ours;
}

/* ---- clients: a thread for each ---- */
struct client {
    struct client *next; /* parked */
    int fd;
    bool asked, told;      /* it has had a reply; it is to hang up, and nothing more is executed */
    size_t size, capacity; /* of what it sent and we have not looked at */
    char in[];
};

/* poll() that goes on after a signal. */
static int wait_for(struct pollfd *p, nfds_t count, int timeout_ms) {
    int ready;
    while ((ready = poll(p, count, timeout_ms)) < 0 && errno == EINTR) {}
    return ready;
}

static bool say(const struct client *c, const char *line) {
    return send(c->fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line);
}

static bool answer(struct client *c, char *line) {
    char reply[LINE_BYTES_MAX + 32];
    /* The fence: a seal waits for those inside it, and keeps out those that come after it. */
    bool executed = handoff_write_begin(h) == HANDOFF_OK;
    if (executed) {
        executed = execute(line, reply, sizeof reply - sizeof " CLOSE\n");
        handoff_write_end(h);
    }
    c->asked = true;
    c->told = !executed || server.stopping;
    return say(c, executed ? strcat(reply, c->told ? " CLOSE\n" : "\n") : "CLOSE\n");
}

/* False: we drain.  If nobody comes after us, one that has just connected is still heard: it is about to ask. */
static bool request_comes(const struct client *c) {
    struct pollfd p[] = {{.fd = c->fd, .events = POLLIN}, {.fd = server.drain_fd, .events = POLLIN}};
    wait_for(p, 2, -1);
    if (!server.stopping) return !server.draining;
    return p[0].revents || (!c->asked && wait_for(p, 1, FIRST_REQUEST_MS) > 0);
}

/* What the client sends from here on is for whoever serves next.  False: the drain was given up in between. */
static bool park(struct client *c) {
    pthread_mutex_lock(&server.lock);
    bool parked = server.draining && !server.stopping;
    if (parked) c->next = server.parked, server.parked = c;
    pthread_mutex_unlock(&server.lock);
    return parked;
}

/* One request, or a part of one.  False: the connection has ended. */
static bool serve_once(struct client *c) {
    char *end = memchr(c->in, '\n', c->size);
    if ((end ? (size_t)(end - c->in) : c->size) >= LINE_BYTES_MAX) return say(c, "ERR the line is too long\n") && false;
    if (end) {
        *end++ = '\0';
        bool connected = answer(c, c->in);
        c->size -= (size_t)(end - c->in);
        memmove(c->in, end, c->size);
        return connected;
    }
    if (request_comes(c)) {
        ssize_t got = recv(c->fd, c->in + c->size, c->capacity - c->size, 0);
        c->size += got > 0 ? (size_t)got : 0;
        return got > 0;
    }
    c->told = server.stopping;
    return !c->told || say(c, "CLOSE\n");
}

static void *serve_client(void *client) {
    struct client *c = client;
    bool connected = true, parked = false;
    while (connected && !c->told && !(parked = server.draining && park(c))) connected = serve_once(c);
    if (!parked) {
        struct pollfd hang_up = {.fd = c->fd, .events = POLLIN};
        while (connected && wait_for(&hang_up, 1, HANG_UP_MS) > 0 && recv(c->fd, c->in, c->capacity, 0) > 0) {}
        close(c->fd);
        free(c);
    }
    if (--server.threads == 0) eventfd_write(server.gone_fd, 1);
    return NULL;
}

/* Detached from the start: in glibc pthread_detach() may touch a thread that ends meanwhile after its memory is gone. */
static void start_client(struct client *c) {
    pthread_t thread;
    server.threads++;
    if (pthread_create(&thread, &server.detached, serve_client, c) != 0)
        serve_client(c); /* no thread left: the next client waits in the backlog */
}

/* A connection, with what was read of it already. */
static void take_client(int fd, const void *state, size_t size) {
    size_t capacity = size > LINE_BYTES_MAX ? size : LINE_BYTES_MAX;
    struct client *c = malloc(sizeof *c + capacity);
    if (!c) abort(); /* as in put */
    *c = (struct client){.fd = fd, .size = size, .capacity = capacity};
    memcpy(c->in, state, size);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* whoever had it before may poll */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = SEND_S}, sizeof(struct timeval));
    start_client(c);
}

static void *accept_clients(void *unused) {
    struct pollfd p[] = {{.fd = server.listener, .events = POLLIN}, {.fd = server.drain_fd, .events = POLLIN}};
    while (wait_for(p, 2, -1) > 0 && !p[1].revents) {
        int fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) wait_for(&p[1], 1, 10); /* until a client hangs up */
        if (fd >= 0) take_client(fd, "", 0);
    }
    return unused;
}

/* All that the incumbent had, after the commit. */
static bool take_clients(void) {
    handoff_connection c;
    int more;
    while ((more = handoff_next_connection(h, &c, sizeof c)) == 1) take_client(c.fd, c.state, c.state_size);
    return more == 0;
}

/* Ours stay open, and untouched, until we know who serves. */
static bool move_clients(void) {
    int code = handoff_put_state(h, "lineage", lineage, strlen(lineage));
    if (code == HANDOFF_EREFUSED) return true; /* its library is too old: what is parked is closed at the end */
    bool ok = code == HANDOFF_OK;
    for (struct client *c = server.parked; c && ok; c = c->next)
        ok = handoff_put_connection(h, c->fd, "client", c->in, c->size) == HANDOFF_OK;
    return ok;
}

/* ---- start, stop, handoff ---- */
/* The listener that was given, or, without a supervisor, one of our own. */
static int take_listener(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr *address = (struct sockaddr *)&at;
    socklen_t size = sizeof at;
    int fd = handoff_take_listener(h, "kv", 0);
    if (fd != HANDOFF_ENOTGIVEN) return fd;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, address, size) != 0 || listen(fd, BACKLOG) != 0 || getsockname(fd, address, &size) != 0)
        return perror("kv: bind"), -1;
    fprintf(stderr, "kv: listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    return fd;
}

static bool start_accepting(void) { return pthread_create(&server.acceptor, NULL, accept_clients, NULL) == 0; }

/* Nobody accepts, and no client has a thread.  False: not in time. */
static bool stop_clients(handoff *handle, const handoff_event *e) {
    struct pollfd p[] = {{.fd = server.gone_fd, .events = POLLIN}, {.fd = e ? e->cancel_fd : -1, .events = POLLIN}};
    server.draining = true;
    eventfd_write(server.drain_fd, 1);
    pthread_join(server.acceptor, NULL);
    close(server.listener);
    server.listener = -1;
    while (server.threads > 0) {
        int left_ms = e ? handoff_remaining_ms(handle, e->id) - MARGIN_MS : HANG_UP_MS;
        if (left_ms <= 0 || wait_for(p, 2, left_ms) <= 0 || p[1].revents) return false;
        eventfd_read(server.gone_fd, &(eventfd_t){0});
    }
    return true;
}

/* Whoever knocks from here on waits in the backlog for the one that serves next. */
static void on_drain(handoff *handle, const handoff_event *e, void *user) {
    char why[512];
    (void)user;
    if (!stop_clients(handle, e)) handoff_failed(handle, e->id, "a client does not read its reply");
    else if (!move_clients()) handoff_failed(handle, e->id, handoff_errmsg(handle, why, sizeof why));
    else handoff_done(handle, e->id);
}

static void on_seal(handoff *handle, const handoff_event *e, void *user) {
    (void)user;
    if (close_log()) handoff_sealed(handle, e->id, &store.revision, 1);
    else handoff_failed(handle, e->id, "the log is broken");
}

/* Those that were given are the successor's.  Without a shutdown, which it would feel, too. */
static void on_parked(handoff *handle, const handoff_event *e, void *user) {
    (void)handle, (void)e, (void)user;
    for (struct client *c; (c = server.parked); free(c)) {
        server.parked = c->next;
        close(c->fd);
    }
}

/* As if nothing had been: the parked clients get threads again. */
static void resume_clients(void) {
    pthread_mutex_lock(&server.lock);
    server.draining = false;
    eventfd_read(server.drain_fd, &(eventfd_t){0});
    struct client *parked = server.parked;
    server.parked = NULL;
    pthread_mutex_unlock(&server.lock);
    for (struct client *c; (c = parked); start_client(c)) parked = c->next; /* c may be gone once it has a thread */
}

static void on_resume(handoff *handle, const handoff_event *e, void *user) {
    if (e->flags & HANDOFF_EVENT_AFTER_COMMIT) on_parked(handle, e, user);
    if (open_log()) resume_clients();
    if (store.log < 0)
        handoff_failed(handle, e->id, "cannot open the log");
    else if (server.listener < 0 && ((server.listener = take_listener(0)) < 0 || !start_accepting()))
        handoff_failed(handle, e->id, "cannot accept");
    else
        handoff_done(handle, e->id);
}

static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }

static int fail(const char *what) {
    char why[512];
    return fprintf(stderr, "kv: %s: %s\n", what, h ? handoff_errmsg(h, why, sizeof why) : strerror(errno)), 1;
}

int main(int argc, char **argv) {
    char why[512];
    const char *dir = argc > 1 ? argv[1] : getenv("HANDOFF_DATA_DIR");
    if (!dir || !*dir) return fprintf(stderr, "usage: kv [DATA_DIR [PORT]], or HANDOFF_DATA_DIR=DATA_DIR kv\n"), 2;
    if (!(dir = strdup(dir))) return perror("kv"), 1; /* handoff_detect_role consumes the environment */
    mkdir(dir, 0755); /* if that fails, and matters, handoff_detect_role says so */

    /* Before any descriptor is opened: its number may be one that was promised to us. */
    handoff_config *config = handoff_config_new();
    handoff_config_set_str(config, HANDOFF_OPT_BUILD_ID, BUILD);
    handoff_config_set_str(config, HANDOFF_OPT_DATA_DIR, dir);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "kv: %s\n", why), 1;
    handoff_config_free(config);
    if ((store.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) return perror(dir), 1;
    server.drain_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server.gone_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_attr_init(&server.detached);
    pthread_attr_setdetachstate(&server.detached, PTHREAD_CREATE_DETACHED);
    signal(SIGTERM, on_sigterm);
    handoff_on_drain(h, on_drain, NULL, NULL);
    handoff_on_seal(h, on_seal, NULL, NULL);
    handoff_on_resume(h, on_resume, NULL, NULL);
    handoff_on_parked(h, on_parked, NULL, NULL);

    if ((server.listener = take_listener(argc > 2 ? (uint16_t)atoi(argv[2]) : 0)) < 0) return fail("no listener");
    if (handoff_wait_for_begin(h, -1) != HANDOFF_OK) return fail("cannot begin");
    if (!open_log()) return 1;
    inherit_lineage();
    handoff_readiness ready = {.size = sizeof ready, .revisions = &store.revision, .revision_count = 1};
    if (handoff_announce_ready(h, &ready, -1) != HANDOFF_OK) return fail("not wanted");
    if (!take_clients()) return fail("cannot take the connections");
    if (!start_accepting()) return fail("cannot accept");

    int end = handoff_serve(h);
    if (end == HANDOFF_REPLACED) _exit(0); /* not exit(): the data is not ours, nothing may be flushed into it */
    if (end != HANDOFF_STOPPED) return fail("serve");
    server.stopping = true;
    stop_clients(h, NULL);
    return close_log() ? 0 : fail("cannot close the log");
}
