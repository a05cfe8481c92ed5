/* cache.c - a cache whose memory is handed over, so that its successor is warm at once and nothing is copied.
 *
 *   handoff run --listen cache=127.0.0.1:7070 -- cache [MIB]     the size of a new table, default 1024
 *
 * One request per line, many per connection; keys and values are words without blanks, together up to 242 bytes.
 *
 *   SET key value  ->  STORED
 *   GET key        ->  VALUE <value>, or NONE
 *   STAT           ->  STAT pid <pid> build <build> entries <n> damaged <n> bytes <of the table> inode <of its memfd>
 *                      touched <KiB of the table that this process had read or written when it began to serve>
 *   anything else  ->  ERROR <why>
 *
 * The table lies in a memfd and has no pointers, so that every process may map it anywhere.  Who serves writes it; the
 * others keep it as it is: the incumbent from the seal on, the successor until its commit.  A process may be killed while
 * it writes an entry, and the next one to serve has the same memory: so each entry has a checksum.  Clients move, too. */
#define _GNU_SOURCE
#include <errno.h>
#include <handoff.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef BUILD
#define BUILD "dev"
#endif

enum {
    WAYS = 8, /* a key has so many slots to be in; the one that was not used for longest makes room */
    LINE_BYTES = 512, OUT_BYTES = 4096,
    STATE_VERSION = 1, STATE_HEADER = 5, /* the version, and two sizes */
    PROCESS = 0, LISTENER = 1, FIRST = 2, CLIENTS_MAX = 1024, END = FIRST + CLIENTS_MAX,
};

static handoff *h;

static int complain(const char *why) { return fprintf(stderr, "cache: %s\n", why), 1; }

static int fail(const char *what) {
    char why[512];
    return fprintf(stderr, "cache: %s: %s\n", what, handoff_errmsg(h, why, sizeof why)), 1;
}

/* ---- the table: a page that describes it, then slots ---- */
struct slot {
    uint64_t used; /* when it was written or read last; 0: never */
    uint32_t sum;  /* of what follows */
    uint8_t key_size, value_size;
    char text[242]; /* the key, then the value */
};

struct table {
    char magic[8]; /* changes with the layout */
    uint64_t sets, entries, clock;
    _Alignas(4096) struct slot slots[];
};

static struct table *table;
static struct stat memory;
static uint64_t damaged;
static long touched_kib;

static uint32_t fnv1a(const void *data, size_t size) {
    uint32_t hash = 2166136261u;
    for (const uint8_t *at = data, *end = at + size; at < end; at++) hash = (hash ^ *at) * 16777619u;
    return hash;
}

static uint32_t sum_of(const struct slot *s) {
    return fnv1a(&s->key_size, 2u + s->key_size + s->value_size);
}

/* False: nobody has written it, or somebody was killed in the middle of it. */
static bool is_whole(const struct slot *s) {
    return s->used && s->key_size + s->value_size <= (int)sizeof s->text && s->sum == sum_of(s);
}

/* The slot of the key; without one, that which it gets. */
static struct slot *find(const char *key, size_t size, bool *found) {
    struct slot *set = &table->slots[fnv1a(key, size) % table->sets * WAYS], *oldest = set;
    for (struct slot *s = set; s < set + WAYS; s++) {
        bool whole = is_whole(s);
        if (s->used && !whole) damaged++, table->entries--, s->used = 0;
        if (whole && s->key_size == size && memcmp(s->text, key, size) == 0) return *found = true, s;
        if (s->used < oldest->used) oldest = s;
    }
    return *found = false, oldest;
}

static const char *set(const char *key, const char *value) {
    size_t key_size = strlen(key), value_size = strlen(value);
    if (key_size + value_size > sizeof ((struct slot *)0)->text || value_size > UINT8_MAX) return "ERROR too big";
    bool found;
    struct slot *s = find(key, key_size, &found);
    if (!s->used) table->entries++;
    s->used = ++table->clock;
    s->key_size = (uint8_t)key_size;
    s->value_size = (uint8_t)value_size;
    memcpy(s->text, key, key_size);
    memcpy(s->text + key_size, value, value_size);
    s->sum = sum_of(s);
    return "STORED";
}

static long shared_memory_kib(void) {
    char line[128];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && kib < 0 && fgets(line, sizeof line, status)) sscanf(line, "RssShmem: %ld kB", &kib);
    if (status) fclose(status);
    return kib;
}

/* The incumbent's table, or a new one of this size; the descriptor stays open, to be given away. */
static int open_table(size_t size) {
    int fd = handoff_take_state_fd(h, "table");
    bool is_new = fd < 0;
    if (is_new && fd != HANDOFF_ENONAME) return fail("the incumbent's table"), -1;
    if (is_new && ((fd = memfd_create("cache", MFD_CLOEXEC)) < 0 || ftruncate(fd, (off_t)size) != 0))
        return perror("cache: memfd"), -1;
    if (fstat(fd, &memory) != 0 || memory.st_size < (off_t)(sizeof *table + WAYS * sizeof(struct slot)))
        return complain("the table is too small"), -1;
    table = mmap(NULL, (size_t)memory.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (table == MAP_FAILED) return perror("cache: mmap"), -1;
    uint64_t sets = ((size_t)memory.st_size - sizeof *table) / (WAYS * sizeof(struct slot));
    if (is_new) {
        memcpy(table->magic, "cache 1", 8);
        table->sets = sets;
    }
    if (memcmp(table->magic, "cache 1", 8) != 0 || table->sets != sets) return complain("this is no table of ours"), -1;
    return fd;
}

/* ---- clients ---- */
struct client {
    size_t in_size, out_size; /* read and not a whole line yet; not written yet */
    char in[LINE_BYTES], out[OUT_BYTES];
};

static struct pollfd p[END];
static struct client *clients[END];
static int count;
static bool draining, sealed;

/* Returns the number of the new client, 0 if there is none. */
static int add(int fd) {
    int i = FIRST;
    while (i < END && clients[i]) i++;
    if (i == END || !(clients[i] = calloc(1, sizeof *clients[i]))) {
        complain("no room for a client");
        return close(fd), 0;
    }
    count++;
    p[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    return i;
}

static void lose(int i) {
    close(p[i].fd);
    free(clients[i]);
    clients[i] = NULL;
    p[i].fd = -1;
    count--;
}

/* The reply to a line, which ends with NUL. */
static void execute(char *line, char *reply, size_t size) {
    char *word[4], *rest, *next = strtok_r(line, " \r", &rest);
    int words = 0;
    for (; next && words < 4; next = strtok_r(NULL, " \r", &rest)) word[words++] = next;
    if (words == 3 && strcmp(word[0], "SET") == 0) {
        snprintf(reply, size, "%s\n", set(word[1], word[2]));
    } else if (words == 2 && strcmp(word[0], "GET") == 0) {
        bool found;
        struct slot *s = find(word[1], strlen(word[1]), &found);
        if (found) s->used = ++table->clock;
        if (found) snprintf(reply, size, "VALUE %.*s\n", s->value_size, s->text + s->key_size);
        else snprintf(reply, size, "NONE\n");
    } else if (words == 1 && strcmp(word[0], "STAT") == 0) {
        snprintf(reply, size, "STAT pid %d build " BUILD " entries %" PRIu64 " damaged %" PRIu64
                 " bytes %jd inode %ju touched %ld\n", (int)getpid(), table->entries, damaged,
                 (intmax_t)memory.st_size, (uintmax_t)memory.st_ino, touched_kib);
    } else {
        snprintf(reply, size, "ERROR not a request\n");
    }
}

/* Executes the lines that are there, and writes the replies; what can not be written yet keeps further lines waiting. */
static bool handle(int i) {
    struct client *c = clients[i];
    char *line = c->in, *end;
    while (OUT_BYTES - c->out_size >= LINE_BYTES && (end = memchr(line, '\n', c->in_size))) {
        *end++ = '\0';
        execute(line, c->out + c->out_size, LINE_BYTES);
        c->out_size += strlen(c->out + c->out_size);
        c->in_size -= (size_t)(end - line);
        line = end;
    }
    memmove(c->in, line, c->in_size);
    ssize_t n = c->out_size ? send(p[i].fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (n > 0) memmove(c->out, c->out + n, c->out_size -= (size_t)n);
    bool waits = memchr(c->in, '\n', c->in_size);
    p[i].events = waits || c->out_size ? POLLOUT : POLLIN;
    return (n >= 0 || errno == EAGAIN) && (waits || c->in_size < LINE_BYTES); /* else the line is too long */
}

static bool serve(int i) {
    struct client *c = clients[i];
    if (p[i].revents & ~POLLOUT && c->in_size < LINE_BYTES) {
        ssize_t n = recv(p[i].fd, c->in + c->in_size, LINE_BYTES - c->in_size, MSG_DONTWAIT);
        if (n <= 0) return n < 0 && errno == EAGAIN;
        c->in_size += (size_t)n;
    }
    return handle(i);
}

/* ---- handoff ---- */
static bool give_clients(void) {
    static uint8_t state[STATE_HEADER + LINE_BYTES + OUT_BYTES] = {STATE_VERSION};
    for (int i = FIRST; i < END; i++) {
        struct client *c = clients[i];
        if (!c) continue;
        for (int byte = 0; byte < 2; byte++) {
            state[1 + byte] = (uint8_t)(c->in_size >> 8 * byte);
            state[3 + byte] = (uint8_t)(c->out_size >> 8 * byte);
        }
        memcpy(state + STATE_HEADER, c->in, c->in_size);
        memcpy(state + STATE_HEADER + c->in_size, c->out, c->out_size);
        if (handoff_put_connection(h, p[i].fd, "client", state, STATE_HEADER + c->in_size + c->out_size) < 0) return false;
    }
    return true;
}

/* False: the state makes no sense. */
static bool unpack(struct client *c, const uint8_t *state, size_t size) {
    if (size < STATE_HEADER || state[0] != STATE_VERSION) return false;
    size_t in_size = state[1] | (size_t)state[2] << 8, out_size = state[3] | (size_t)state[4] << 8;
    if (in_size > LINE_BYTES || out_size > OUT_BYTES || size != STATE_HEADER + in_size + out_size) return false;
    memcpy(c->in, state + STATE_HEADER, c->in_size = in_size);
    memcpy(c->out, state + STATE_HEADER + in_size, c->out_size = out_size);
    return true;
}

static int take_clients(void) {
    handoff_connection given;
    int got;
    while ((got = handoff_next_connection(h, &given, sizeof given)) > 0) {
        int i = add(given.fd);
        if (i > 0 && !unpack(clients[i], given.state, given.state_size)) {
            complain("a connection came with a state that makes no sense");
            lose(i);
        }
    }
    for (int i = FIRST; i < END; i++)
        if (clients[i] && !handle(i)) lose(i); /* what was read already comes with no event */
    return got;
}

static void lose_all(void) {
    for (int i = FIRST; i < END; i++)
        if (clients[i]) lose(i);
}

static void on_event(const handoff_event *e, int memfd) {
    if (e->kind == HANDOFF_EVENT_DRAIN) { /* clients are served until the seal */
        draining = true;
        handoff_done(h, e->id);
    } else if (e->kind == HANDOFF_EVENT_SEAL) {
        sealed = true; /* from here on only the library is heard */
        if (handoff_put_state_fd(h, "table", memfd) == HANDOFF_OK && give_clients()) handoff_sealed(h, e->id, NULL, 0);
        else handoff_failed(h, e->id, "the table or a connection can not be given");
    } else if (e->kind == HANDOFF_EVENT_PARKED) {
        lose_all(); /* they are the successor's */
    } else if (e->kind == HANDOFF_EVENT_RESUME) {
        /* A successor that had committed has died: what it said to its clients, nobody knows. */
        if (e->flags & HANDOFF_EVENT_AFTER_COMMIT) lose_all();
        draining = sealed = false;
        handoff_done(h, e->id);
    } else if (e->kind == HANDOFF_EVENT_REPLACED) {
        _exit(0);
    }
}

static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }

int main(int argc, char **argv) {
    char why[512];
    handoff_event e = {0};
    int got = 0, memfd;
    size_t size = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1024) << 20;
    handoff_config *config = handoff_config_new();
    handoff_config_set_str(config, HANDOFF_OPT_BUILD_ID, BUILD);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return complain(why);
    handoff_config_free(config);
    signal(SIGTERM, on_sigterm);
    for (int i = 0; i < END; i++) p[i] = (struct pollfd){.fd = -1, .events = POLLIN}; /* poll skips -1 */
    p[PROCESS].fd = handoff_pollfd(h);
    if ((p[LISTENER].fd = handoff_take_listener(h, "cache", 0)) < 0) return fail("no listener");
    if (handoff_wait_for_begin(h, -1) != HANDOFF_OK) return fail("cannot begin");
    long before_kib = shared_memory_kib();
    if ((memfd = open_table(size)) < 0) return 1;
    if (handoff_announce_ready(h, NULL, -1) != HANDOFF_OK) return fail("not wanted");
    touched_kib = shared_memory_kib() - before_kib;
    if (take_clients() < 0) return fail("cannot take all clients");
    while (got >= 0) {
        int fd = -1;
        p[LISTENER].events = draining || count == CLIENTS_MAX ? 0 : POLLIN;
        if (poll(p, sealed ? LISTENER : END, -1) < 0) continue;
        for (int i = FIRST; i < END && !sealed; i++)
            if (clients[i] && p[i].revents && !serve(i)) lose(i);
        if (!sealed && p[LISTENER].revents) fd = accept4(p[LISTENER].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) add(fd);
        while (p[PROCESS].revents && (got = handoff_dispatch(h, &e, sizeof e)) > 0) {
            if (e.kind == HANDOFF_EVENT_STOPPED) return handoff_free(h), 0;
            on_event(&e, memfd);
        }
    }
    return fail("serve");
}
