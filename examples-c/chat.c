/* chat.c - a chat over WebSockets (RFC 6455) whose clients do not notice when it is replaced.
 *
 *   handoff run --listen chat=127.0.0.1:8080 -- chat
 *
 * What a client says, in text, goes to everybody in its room, itself included, as
 *
 *   <n> <from> <m> <text>     the n-th message to this receiver, the m-th of that sender
 *
 * and what begins with a slash is answered to the client alone, as "<n> * <m> <answer>":
 *
 *   /nick NAME    /join ROOM    /who: nick and room, and which process and build this is
 *
 * A session is more than its connection: names, both counters, what was read and is not a whole frame or message yet,
 * and what could not be written yet.  All that moves.  From the seal on nothing is read or written here; the successor
 * begins after its commit, and if there is none, this process goes on where it stopped. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <handoff.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef BUILD
#define BUILD "dev"
#endif

enum {
    MESSAGE_BYTES = 8192,
    IN_BYTES = MESSAGE_BYTES + 14,                 /* the longest frame of a client */
    REPLY_BYTES = MESSAGE_BYTES + 128,             /* the longest frame to a client */
    OUT_BYTES = 32768,                             /* that many bytes behind, a client in a room is too slow */
    NAME_BYTES = 32,
    STATE_VERSION = 1, STATE_BYTES = IN_BYTES + MESSAGE_BYTES + OUT_BYTES + 256, /* 60 KiB at most may move */
    HANG_UP_S = 1,                                 /* for clients to hang up when we are to exit */
};
enum opcode { CONTINUATION = 0, TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum close_code { GOING_AWAY = 1001, PROTOCOL = 1002, UNSUPPORTED = 1003, NOT_UTF8 = 1007, TOO_BIG = 1009 };

struct client {
    struct client *next;
    int fd;
    uint32_t events;   /* what epoll watches */
    bool gone;         /* to be closed and freed after this round */
    bool stalled;      /* there is no room for a reply: what it says has to wait */
    uint64_t upgraded; /* it speaks WebSocket by now */
    uint64_t closing;  /* it has been told the end: what it says is not heard any more */
    uint64_t partial;  /* message has fragments of a message that goes on */
    uint64_t received, sent;
    uint64_t in_size, message_size, out_size, nick_size, room_size;
    char nick[NAME_BYTES + 1], room[NAME_BYTES + 1];
    uint8_t in[IN_BYTES], message[MESSAGE_BYTES], out[OUT_BYTES];
};

static handoff *h;
static struct client *clients;
static int epoll, listener;
static bool sealed, any_gone;

static int complain(const char *what) { return fprintf(stderr, "chat: %s\n", what), 1; }
static int fail(const char *what) {
    char why[512];
    return fprintf(stderr, "chat: %s: %s\n", what, h ? handoff_errmsg(h, why, sizeof why) : strerror(errno)), 1;
}

/* ---- the accept key of RFC 6455: base64 of the SHA-1 of the client's key and a constant, which are 60 bytes ---- */
static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t state[5], const uint8_t *block) {
    static const uint32_t k[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++) w[i] = ntohl(((const uint32_t *)(const void *)block)[i]);
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void accept_key(const char *key, char text[29]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    _Alignas(uint32_t) uint8_t hashed[128] = {[60] = 0x80, [126] = 60 * 8 >> 8, [127] = 60 * 8 & 255};
    uint8_t sum[21] = {0};
    memcpy(hashed, key, 24);
    memcpy(hashed + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1_block(state, hashed);
    sha1_block(state, hashed + 64);
    for (int i = 0; i < 20; i++) sum[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
    for (int i = 0; i < 28; i++) {
        const uint8_t *s = sum + i / 4 * 3;
        uint32_t bits = (uint32_t)s[0] << 16 | (uint32_t)s[1] << 8 | s[2];
        text[i] = digits[bits >> (18 - i % 4 * 6) & 63];
    }
    memcpy(text + 27, "=", 2);
}

/* ---- what goes out ---- */
static void lose(struct client *c) { c->gone = any_gone = true; }

static void queue(struct client *c, const void *data, size_t size) {
    if (size > OUT_BYTES - c->out_size) {
        complain("a client is too slow");
        lose(c);
        return;
    }
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void queue_frame(struct client *c, enum opcode opcode, const void *data, size_t size) {
    uint8_t frame[REPLY_BYTES] = {(uint8_t)(0x80 | opcode), (uint8_t)size};
    size_t header = size < 126 ? 2 : 4;
    if (header == 4) frame[1] = 126, frame[2] = (uint8_t)(size >> 8), frame[3] = (uint8_t)size;
    memcpy(frame + header, data, size);
    queue(c, frame, header + size);
}

static void queue_close(struct client *c, enum close_code code) {
    queue_frame(c, CLOSE, (uint8_t[]){(uint8_t)(code >> 8), (uint8_t)code}, 2);
    c->closing = true;
}

static void say(struct client *c, const char *from, uint64_t number, const void *text, size_t size) {
    char line[REPLY_BYTES - 4];
    int start = snprintf(line, sizeof line, "%" PRIu64 " %s %" PRIu64 " ", ++c->sent, from, number);
    memcpy(line + start, text, size);
    queue_frame(c, TEXT, line, (size_t)start + size);
}

/* Writes what the kernel takes, and asks epoll for what there is to wait for. */
static void flush(struct client *c) {
    ssize_t n = c->gone || !c->out_size ? 0 : send(c->fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) lose(c);
    if (n > 0) memmove(c->out, c->out + n, c->out_size -= (size_t)n);
    if (c->gone) return;
    if (c->closing && !c->out_size) shutdown(c->fd, SHUT_WR); /* it hangs up when it has read that */
    uint32_t events = (c->stalled ? 0u : EPOLLIN) | (c->stalled || c->out_size ? EPOLLOUT : 0u);
    if (events != c->events) epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){events, {.ptr = c}});
    c->events = events;
}

/* ---- what comes in ---- */
static bool is_utf8(const uint8_t *s, size_t size) {
    for (const uint8_t *end = s + size; s < end; s++) {
        uint8_t lead = *s, low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        int more = lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
        if (more < 0 || more >= end - s) return false;
        for (; more > 0; more--, low = 0x80, high = 0xbf)
            if (*++s < low || *s > high) return false;
    }
    return true;
}

/* A name is a word; false: this is none. */
static bool set_name(char name[NAME_BYTES + 1], uint64_t *size, const char *text, size_t text_size) {
    if (text_size == 0 || text_size > NAME_BYTES) return false;
    for (size_t i = 0; i < text_size; i++) if ((uint8_t)text[i] <= ' ') return false;
    memcpy(name, text, *size = text_size);
    return name[text_size] = '\0', true;
}

static void answer(struct client *c, const char *text, size_t size) {
    char line[256];
    bool ok = size == 4 && memcmp(text, "/who", 4) == 0;
    if (size > 6 && memcmp(text, "/nick ", 6) == 0) ok = set_name(c->nick, &c->nick_size, text + 6, size - 6);
    if (size > 6 && memcmp(text, "/join ", 6) == 0) ok = set_name(c->room, &c->room_size, text + 6, size - 6);
    int n = snprintf(line, sizeof line, "%s%s in %s at %d " BUILD, ok ? "" : "what? ", c->nick, c->room, (int)getpid());
    say(c, "*", c->received, line, (size_t)n);
}

static void handle_message(struct client *c) {
    size_t size = c->message_size;
    c->message_size = 0;
    c->received++;
    if (!is_utf8(c->message, size)) queue_close(c, NOT_UTF8);
    else if (size > 0 && c->message[0] == '/') answer(c, (const char *)c->message, size);
    else for (struct client *to = clients; to; to = to->next) {
        if (!to->upgraded || to->closing || to->gone || strcmp(to->room, c->room) != 0) continue;
        say(to, c->nick, c->received, c->message, size);
        if (to != c) flush(to);
    }
}

static void handle_control(struct client *c, enum opcode opcode, const uint8_t *data, size_t size) {
    if (opcode == PING) queue_frame(c, PONG, data, size);
    if (opcode != CLOSE) return;
    queue_frame(c, CLOSE, data, size < 2 ? 0 : 2);
    c->closing = true;
}

/* Returns how many of these bytes were a frame: 0 if it is not whole yet. */
static size_t handle_frame(struct client *c, uint8_t *data, size_t size) {
    if (size < 2) return 0;
    bool final = data[0] & 0x80, control = data[0] & 8;
    enum opcode opcode = data[0] & 15;
    uint64_t length = data[1] & 127;
    size_t mask = length == 127 ? 10 : length == 126 ? 4 : 2, start = mask + 4;
    if (size < start) return 0;
    if (mask > 2) length = 0;
    for (size_t i = 2; i < mask; i++) length = length << 8 | data[i];
    enum close_code wrong = 0;
    if ((data[0] & 0x70) || !(data[1] & 0x80) || (control && (!final || length > 125 || opcode > PONG))) wrong = PROTOCOL;
    else if (!control && opcode > TEXT) wrong = UNSUPPORTED;
    else if (!control && (opcode == CONTINUATION) != c->partial) wrong = PROTOCOL;
    else if (length > MESSAGE_BYTES - (control ? 0 : c->message_size)) wrong = TOO_BIG;
    if (wrong) return queue_close(c, wrong), size;
    if (size < start + length) return 0;
    for (size_t i = 0; i < length; i++) data[start + i] ^= data[mask + i % 4];
    if (control) return handle_control(c, opcode, data + start, length), start + length;
    memcpy(c->message + c->message_size, data + start, length);
    c->message_size += length;
    c->partial = !final;
    if (final) handle_message(c);
    return start + length;
}

/* The request that makes a WebSocket of a connection; returns as handle_frame. */
static size_t handle_upgrade(struct client *c, uint8_t *data, size_t size) {
    static const char refusal[] = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Connection: Upgrade, close\r\n\r\n";
    char request[IN_BYTES + 1], key[29], reply[256];
    uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    size_t length = end ? (size_t)(end - data) + 2 : size;
    memcpy(request, data, length);
    request[length] = '\0';
    const char *given = strcasestr(request, "\r\nSec-WebSocket-Key:");
    if (!end && size < IN_BYTES) return 0;
    if (given) given += 20 + strspn(given + 20, " \t");
    if (!end || memcmp(request, "GET ", 4) != 0 || !given || strcspn(given, " \t\r") != 24 ||
        !strcasestr(request, "\r\nUpgrade: websocket") || !strcasestr(request, "\r\nSec-WebSocket-Version: 13")) {
        queue(c, refusal, sizeof refusal - 1);
        c->closing = true;
        return size;
    }
    accept_key(given, key);
    int n = snprintf(reply, sizeof reply, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                          "Sec-WebSocket-Accept: %s\r\n\r\n", key);
    queue(c, reply, (size_t)n);
    c->upgraded = true;
    return length + 2;
}

/* Handles what was read, as far as there is room for replies. */
static void handle(struct client *c) {
    size_t at = 0, used = 1;
    while (used && !c->gone && !c->closing && !(c->stalled = OUT_BYTES - c->out_size < REPLY_BYTES))
        at += used = (c->upgraded ? handle_frame : handle_upgrade)(c, c->in + at, c->in_size - at);
    if (c->closing) at = c->in_size;
    memmove(c->in, c->in + at, c->in_size -= at);
    flush(c);
}

static void on_events(struct client *c, uint32_t events) {
    size_t space = IN_BYTES - c->in_size;
    ssize_t n = space && (events & ~(uint32_t)EPOLLOUT) ? recv(c->fd, c->in + c->in_size, space, MSG_DONTWAIT) : -1;
    if (n == 0 || (n < 0 && (events & EPOLLERR))) lose(c);
    if (n > 0) c->in_size += (size_t)n;
    handle(c);
}

/* ---- clients come and go ---- */
static struct client *add(int fd) {
    struct client *c = calloc(1, sizeof *c);
    if (!c || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.ptr = c}}) != 0) {
        fail("a connection is lost");
        close(fd);
        free(c);
        return NULL;
    }
    c->fd = fd;
    c->events = EPOLLIN;
    c->next = clients;
    return clients = c;
}

/* Closing is not enough for epoll: the incumbent may still have the same connection. */
static void remove_gone(void) {
    for (struct client **at = &clients, *c; any_gone && (c = *at);) {
        if (!c->gone) at = &c->next;
        else *at = c->next, epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL), close(c->fd), free(c);
    }
    any_gone = false;
}

static void accept_client(void) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) usleep(10000); /* until somebody hangs up */
    struct client *c = fd < 0 ? NULL : add(fd);
    if (!c) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    set_name(c->nick, &c->nick_size, "anonymous", 9);
    set_name(c->room, &c->room_size, "lobby", 5);
}

/* Not by closing the listener: it lives on in others, and epoll would go on to tell of it. */
static void set_accepting(bool on) {
    epoll_ctl(epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener, &(struct epoll_event){EPOLLIN, {0}});
}

/* ---- the state of a session in bytes: the same function writes and reads it ---- */
struct cursor { uint8_t *at, *end; bool reads, ok; };

static void number(struct cursor *s, uint64_t *n, uint64_t max) {
    uint64_t read = 0;
    s->ok = s->ok && s->end - s->at >= 8;
    for (int i = 0; s->ok && i < 8; i++) {
        if (!s->reads) *s->at = (uint8_t)(*n >> 8 * i);
        read |= (uint64_t)*s->at++ << 8 * i;
    }
    if ((s->ok = s->ok && read <= max)) *n = read;
}

static void bytes(struct cursor *s, void *data, uint64_t *size, size_t max) {
    number(s, size, max);
    s->ok = s->ok && (size_t)(s->end - s->at) >= *size;
    if (!s->ok) return;
    memcpy(s->reads ? data : s->at, s->reads ? s->at : data, *size);
    s->at += *size;
}

/* False: this is no state of this version.  Then c is half filled, and only to be thrown away. */
static bool session(struct cursor *s, struct client *c) {
    uint64_t version = STATE_VERSION;
    number(s, &version, UINT64_MAX);
    if (!s->ok || version != STATE_VERSION) return false;
    number(s, &c->upgraded, 1);
    number(s, &c->closing, 1);
    number(s, &c->partial, 1);
    number(s, &c->received, UINT64_MAX);
    number(s, &c->sent, UINT64_MAX);
    bytes(s, c->nick, &c->nick_size, NAME_BYTES);
    bytes(s, c->room, &c->room_size, NAME_BYTES);
    bytes(s, c->in, &c->in_size, IN_BYTES);
    bytes(s, c->message, &c->message_size, MESSAGE_BYTES);
    bytes(s, c->out, &c->out_size, OUT_BYTES);
    return s->ok;
}

/* ---- handoff ---- Sends every connection with its session, and keeps them untouched. */
static bool give_clients(void) {
    static uint8_t state[STATE_BYTES];
    for (struct client *c = clients; c; c = c->next) {
        struct cursor s = {.at = state, .end = state + sizeof state, .ok = true};
        if (!session(&s, c) || handoff_put_connection(h, c->fd, "client", state, (size_t)(s.at - state)) < 0) return false;
    }
    return true;
}

/* Goes on with the connections that were given to us; what was read already comes with no event. */
static int take_clients(void) {
    handoff_connection given;
    int got;
    while ((got = handoff_next_connection(h, &given, sizeof given)) > 0) {
        struct client *c = add(given.fd);
        uint8_t *state = (uint8_t *)(uintptr_t)given.state;
        struct cursor s = {.at = state, .end = state + given.state_size, .reads = true, .ok = true};
        if (c && (!session(&s, c) || s.at != s.end)) {
            complain("a connection came with a state that makes no sense");
            lose(c);
        }
    }
    remove_gone();
    for (struct client *c = clients; c; c = c->next) handle(c);
    return got;
}

static void lose_all(void) {
    for (struct client *c = clients; c; c = c->next) lose(c);
    remove_gone();
}

static void on_event(const handoff_event *e) {
    if (e->kind == HANDOFF_EVENT_DRAIN) { /* clients are served until the seal: only who knocks now has to wait */
        set_accepting(false);
        handoff_done(h, e->id);
    } else if (e->kind == HANDOFF_EVENT_SEAL) {
        sealed = true;
        if (give_clients()) handoff_sealed(h, e->id, NULL, 0);
        else handoff_failed(h, e->id, "a connection can not be given");
    } else if (e->kind == HANDOFF_EVENT_PARKED) {
        lose_all(); /* they are the successor's */
    } else if (e->kind == HANDOFF_EVENT_RESUME) {
        /* A successor that had committed has died: what it said to its clients, nobody knows. */
        if (e->flags & HANDOFF_EVENT_AFTER_COMMIT) lose_all();
        sealed = false;
        set_accepting(true);
        handoff_done(h, e->id);
    } else if (e->kind == HANDOFF_EVENT_REPLACED) _exit(0);
}

/* One round: until timeout_ms if nothing comes.  While we are sealed, only the library is heard. */
static void serve_clients(struct pollfd p[2], int timeout_ms) {
    struct epoll_event ready[64];
    p[1].fd = sealed ? -1 : epoll;
    if (poll(p, 2, timeout_ms) <= 0) p[0].revents = p[1].revents = 0;
    int n = p[1].revents ? epoll_wait(epoll, ready, 64, 0) : 0;
    for (int i = 0; i < n; i++) {
        if (ready[i].data.ptr) on_events(ready[i].data.ptr, ready[i].events);
        else accept_client();
    }
    remove_gone();
}

/* Tells all clients that we go, and waits until they have hung up. */
static int stop(void) {
    struct pollfd p[2] = {{.fd = -1}, {.events = POLLIN}};
    set_accepting(false);
    for (struct client *c = clients; c; c = c->next) {
        if (!c->upgraded) lose(c);
        else if (!c->closing) queue_close(c, GOING_AWAY), flush(c);
    }
    remove_gone();
    for (time_t end = time(NULL) + HANG_UP_S; clients && time(NULL) <= end;) serve_clients(p, 100);
    handoff_free(h);
    return 0;
}

static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }

int main(void) {
    char why[512];
    handoff_event e;
    int got = 0;
    handoff_config *config = handoff_config_new();
    handoff_config_set_str(config, HANDOFF_OPT_BUILD_ID, BUILD);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return complain(why);
    handoff_config_free(config);
    signal(SIGTERM, on_sigterm);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if ((listener = handoff_take_listener(h, "chat", 0)) < 0) return fail("no listener");
    if (handoff_wait_for_begin(h, -1) != HANDOFF_OK) return fail("cannot begin");
    if (handoff_announce_ready(h, NULL, -1) != HANDOFF_OK) return fail("not wanted");
    if (take_clients() < 0) return fail("cannot take all connections");
    set_accepting(true);
    for (struct pollfd p[2] = {{.fd = handoff_pollfd(h), .events = POLLIN}, {.events = POLLIN}}; got >= 0;) {
        serve_clients(p, -1);
        while (p[0].revents && (got = handoff_dispatch(h, &e, sizeof e)) > 0) {
            if (e.kind == HANDOFF_EVENT_STOPPED) return stop();
            on_event(&e);
        }
    }
    return fail("serve");
}
