/* kv_loop.c - the key-value store of the examples in one thread: a poll() loop, and events answered by their id.
 *
 * The store and its log are those of kv.c, as they stand; what is new is how it is served.  All that a turn of the loop
 * writes is synced once, at the end of the turn, and only then are its replies sent.
 *
 * KV_FAULT names a fault, as in faulty_kv.c: crash, unhealthy. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <unistd.h>

static bool in_turn, unsynced;

/* Within a turn, the sync comes at its end. */
static int sync_in_time(int fd) {
    if (!in_turn) return fdatasync(fd);
    unsynced = true;
    return 0;
}

#define fdatasync sync_in_time
#define main threaded_main
#include "../../examples-c/kv.c"
#undef main
#undef fdatasync

#include <time.h>

enum { LISTENER = 1, FIRST = 2, PEERS_MAX = 512, END = FIRST + PEERS_MAX, OUT_BYTES = 4 * LINE_BYTES_MAX, TICK_MS = 5,
       IN_BYTES = 60 * 1024 /* as much as can come with a connection */ };

/* Nothing more is read of a peer while it has replies to take. */
struct peer {
    bool asked, told; /* as in kv.c */
    int64_t hang_up;  /* once it is told: until when we wait for that */
    size_t size, from, to; /* of what it sent; the part of out that is not sent yet */
    char in[IN_BYTES], out[OUT_BYTES];
};

static struct pollfd p[END]; /* 0: the library; poll skips -1 */
static struct peer peers[PEERS_MAX];
static int connected;
static uint64_t drain;    /* the event that waits for its answer */
static int64_t told_from; /* while we stop: whoever has never asked is told from here on */

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- peers ---- */
static void hang_up(int i) {
    close(p[i].fd);
    p[i].fd = -1;
    connected--;
}

static void add_peer(int i, int fd) {
    struct peer *c = &peers[i - FIRST];
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    c->asked = c->told = false;
    c->size = c->from = c->to = 0;
    p[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    connected++;
}

static void accept_peers(void) {
    for (int i = FIRST; i < END && p[LISTENER].fd >= 0; i++) {
        if (p[i].fd >= 0) continue;
        int fd = accept4(p[LISTENER].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        add_peer(i, fd);
    }
}

/* All that the incumbent had, with what it had read of them.  Each send and receive says itself that it must not block. */
static bool take_peers(void) {
    handoff_connection c;
    int more, i = FIRST;
    while ((more = handoff_next_connection(h, &c, sizeof c)) == 1 && i < END && c.state_size <= IN_BYTES) {
        add_peer(i, c.fd);
        memcpy(peers[i - FIRST].in, c.state, c.state_size);
        peers[i++ - FIRST].size = c.state_size;
    }
    return more == 0;
}

static bool move_peers(void) {
    bool ok = handoff_put_state(h, "lineage", lineage, strlen(lineage)) == HANDOFF_OK;
    for (int i = FIRST; i < END && ok; i++)
        if (p[i].fd >= 0)
            ok = handoff_put_connection(h, p[i].fd, "client", peers[i - FIRST].in, peers[i - FIRST].size) == HANDOFF_OK;
    return ok;
}

static void reply(struct peer *c, const char *text, bool last) {
    c->told = last;
    c->hang_up = now_ms() + HANG_UP_MS;
    c->to += (size_t)sprintf(c->out + c->to, "%s%s\n", text, last && strcmp(text, "CLOSE") != 0 ? " CLOSE" : "");
}

/* Executes what has come whole, as far as there is room for the replies. */
static void work(struct peer *c) {
    char text[LINE_BYTES_MAX + 32], *end;
    size_t length = 0;
    while (!c->told && c->to + sizeof text + sizeof " CLOSE\n" <= sizeof c->out) {
        end = memchr(c->in, '\n', c->size);
        length = end ? (size_t)(end - c->in) : c->size;
        if (!end || length >= LINE_BYTES_MAX) break;
        *end++ = '\0';
        bool executed = execute(c->in, text, sizeof text);
        reply(c, executed ? text : "CLOSE", !executed || server.stopping);
        c->asked = true;
        c->size -= (size_t)(end - c->in);
        memmove(c->in, end, c->size);
    }
    if (!c->told && length >= LINE_BYTES_MAX && c->to == 0) reply(c, "ERR the line is too long", true);
}

/* Reads and executes, or, of a peer that was told, only reads.  False: it has gone, or has had its time. */
static bool attend(struct pollfd *at, struct peer *c) {
    if (c->to > 0) return !(at->revents & (POLLERR | POLLHUP)); /* first it takes its replies */
    if (server.draining && !server.stopping) return true;       /* what it sends is for the successor */
    if (at->revents) {
        if (c->told) c->size = 0;
        ssize_t got = recv(at->fd, c->in + c->size, sizeof c->in - c->size, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN)) return false;
        c->size += got > 0 ? (size_t)got : 0;
    }
    work(c);
    if (server.stopping && !c->told && c->to == 0 && (c->asked || now_ms() >= told_from)) reply(c, "CLOSE", true);
    return !c->told || c->to > 0 || now_ms() < c->hang_up;
}

static bool send_replies(struct pollfd *at, struct peer *c) {
    ssize_t sent = send(at->fd, c->out + c->from, c->to - c->from, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) return false;
    c->from += sent > 0 ? (size_t)sent : 0;
    if (c->from == c->to) c->from = c->to = 0;
    at->events = c->to > 0 ? POLLOUT : POLLIN;
    return true;
}

/* True: there is something to do at once. */
static bool turn(void) {
    bool more = false;
    in_turn = true;
    for (int i = FIRST; i < END; i++)
        if (p[i].fd >= 0 && !attend(&p[i], &peers[i - FIRST])) hang_up(i);
    in_turn = false;
    if (unsynced && fdatasync(store.log) != 0) {
        perror("kv: cannot sync"); /* nobody knows what is on disk, and nobody was told that it is */
        _exit(1);
    }
    unsynced = false;
    for (int i = FIRST; i < END; i++) {
        struct peer *c = &peers[i - FIRST];
        if (p[i].fd >= 0 && c->to > 0 && !send_replies(&p[i], c)) hang_up(i);
        more |= p[i].fd >= 0 && c->to == 0 && !c->told && !server.draining && memchr(c->in, '\n', c->size) != NULL;
    }
    return more;
}

/* ---- the handoff ---- */
static void stop_accepting(void) {
    close(p[LISTENER].fd);
    p[LISTENER].fd = -1;
    server.draining = true;
}

/* Answers once every peer has its replies. */
static void go_on_draining(void) {
    char why[512];
    bool busy = false;
    for (int i = FIRST; i < END; i++) busy |= p[i].fd >= 0 && peers[i - FIRST].to > 0;
    if (busy && handoff_remaining_ms(h, drain) > MARGIN_MS) return;
    if (busy) handoff_failed(h, drain, "a client does not read its reply");
    else if (!move_peers()) handoff_failed(h, drain, handoff_errmsg(h, why, sizeof why));
    else handoff_done(h, drain);
    drain = 0;
}

/* Those that were given are the successor's.  Without a shutdown, which it would feel, too. */
static void drop_peers(void) {
    for (int i = FIRST; i < END; i++)
        if (p[i].fd >= 0) hang_up(i);
}

static void resume(uint64_t id) {
    drain = 0;
    server.draining = false;
    if (!open_log())
        handoff_failed(h, id, "cannot open the log");
    else if (p[LISTENER].fd < 0 && (p[LISTENER].fd = take_listener(0)) < 0)
        handoff_failed(h, id, "cannot accept");
    else
        handoff_done(h, id);
}

/* True: it was told to stop. */
static bool dispatch(void) {
    handoff_event e;
    int got;
    while ((got = handoff_dispatch(h, &e, sizeof e)) > 0) switch (e.kind) {
        case HANDOFF_EVENT_DRAIN:
            drain = e.id;
            stop_accepting();
            break;
        case HANDOFF_EVENT_SEAL:
            if (close_log()) handoff_sealed(h, e.id, &store.revision, 1);
            else handoff_failed(h, e.id, "the log is broken");
            break;
        case HANDOFF_EVENT_PARKED: drop_peers(); break;
        case HANDOFF_EVENT_RESUME:
            if (e.flags & HANDOFF_EVENT_AFTER_COMMIT) drop_peers();
            resume(e.id);
            break;
        case HANDOFF_EVENT_REPLACED: _exit(0); /* the data is not ours, nothing may be flushed into it */
        case HANDOFF_EVENT_STOPPED: return true;
    }
    if (got < 0) exit(fail("dispatch"));
    return false;
}

/* The last turns: until all have hung up, or have had their time. */
static int stop(void) {
    p[0].fd = -1;
    server.stopping = true;
    if (!server.draining) stop_accepting();
    told_from = now_ms() + FIRST_REQUEST_MS;
    for (int64_t until = now_ms() + HANG_UP_MS; connected > 0 && now_ms() < until; turn()) wait_for(p, END, TICK_MS);
    return close_log() ? 0 : fail("cannot close the log");
}

static int serve(void) {
    for (bool more = false;;) {
        if (drain) go_on_draining();
        p[LISTENER].events = connected < PEERS_MAX ? POLLIN : 0; /* when full, the next one waits in the backlog */
        /* Peers that are moved are nobody's to read until it is known who serves. */
        wait_for(p, server.draining && !drain ? FIRST : END, more ? 0 : drain ? TICK_MS : -1);
        if (p[0].revents && dispatch()) return stop();
        if (p[LISTENER].revents) accept_peers();
        more = turn();
    }
}

int main(void) {
    char why[512];
    const char *dir = getenv("HANDOFF_DATA_DIR"), *fault = getenv("KV_FAULT");
    if (!dir || !(dir = strdup(dir))) return fprintf(stderr, "usage: HANDOFF_DATA_DIR=DATA_DIR kv_loop\n"), 2;
    fault = fault ? fault : "";
    for (int i = 0; i < END; i++) p[i] = (struct pollfd){.fd = -1, .events = POLLIN};

    handoff_config *config = handoff_config_new();
    handoff_config_set_str(config, HANDOFF_OPT_BUILD_ID, BUILD);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "kv: %s\n", why), 1;
    handoff_config_free(config);
    if ((store.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) return perror(dir), 1;
    signal(SIGTERM, on_sigterm);
    if ((p[LISTENER].fd = take_listener(0)) < 0) return fail("no listener");
    if (handoff_wait_for_begin(h, -1) != HANDOFF_OK) return fail("cannot begin");
    if (!open_log()) return 1;
    inherit_lineage();
    if (strcmp(fault, "crash") == 0) _exit(7);
    handoff_readiness ready = {.size = sizeof ready, .revisions = &store.revision, .revision_count = 1};
    if (strcmp(fault, "unhealthy") == 0) {
        ready.flags = HANDOFF_READY_UNHEALTHY;
        ready.detail = "told to be unhealthy";
    }
    if (handoff_announce_ready(h, &ready, -1) != HANDOFF_OK) return fail("not wanted");
    if (!take_peers()) return fail("cannot take the connections");
    p[0].fd = handoff_pollfd(h);
    return serve();
}
