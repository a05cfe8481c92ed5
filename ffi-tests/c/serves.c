/* serves.c - sessions as those of sessions.c, in overlap mode, without a loop for the library: the first thread is in
 * handoff_serve, which runs the hooks, and another one serves the clients. "n" is answered with "m n", where m counts the answers.
 * SESSIONS_GIVE names a file: until it exists the last drain serves on, and gives nothing. */
#define _GNU_SOURCE
#include <handoff.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SESSIONS_MAX = 256, INPUT_MAX = 4096 };

typedef struct session {
    unsigned long long heard, said; /* the last number in each direction */
    size_t size;
    char input[INPUT_MAX];
} session;

static handoff *h;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static session sessions[SESSIONS_MAX];
static struct pollfd watched[SESSIONS_MAX + 1]; /* the listener is the last one */
static int count;

static void die(const char *what) {
    char why[512];
    fprintf(stderr, "%s: %s\n", what, h ? handoff_errmsg(h, why, sizeof why) : "no handle");
    exit(1);
}

static void add(int fd, const void *state, size_t size) {
    if (count == SESSIONS_MAX || size > sizeof *sessions) die("add");
    memset(&sessions[count], 0, sizeof *sessions);
    if (size) memcpy(&sessions[count], state, size);
    watched[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void drop(int place) {
    close(watched[place].fd);
    count--;
    watched[place] = watched[count];
    sessions[place] = sessions[count];
}

/* Zero once the client is gone. */
static int hear(session *s, int fd) {
    ssize_t got = recv(fd, s->input + s->size, INPUT_MAX - s->size, MSG_DONTWAIT);
    if (got <= 0) return got < 0;
    s->size += (size_t)got;
    char *line = s->input, *end, reply[64];
    while ((end = memchr(line, '\n', s->size - (size_t)(line - s->input)))) {
        unsigned long long number = strtoull(line, NULL, 10);
        if (number != ++s->heard) fprintf(stderr, "LOST: line %llu after %llu\n", number, s->heard - 1);
        int size = snprintf(reply, sizeof reply, "%llu %llu\n", ++s->said, number);
        if (send(fd, reply, (size_t)size, MSG_NOSIGNAL) != size) return 0;
        line = end + 1;
    }
    s->size -= (size_t)(line - s->input);
    memmove(s->input, line, s->size);
    return 1;
}

static void *serve_clients(void *unused) {
    for (;; usleep(500)) {
        pthread_mutex_lock(&mutex);
        poll(watched, (nfds_t)count, 0);
        for (int i = count; i-- > 0;)
            if (watched[i].revents && !hear(&sessions[i], watched[i].fd)) drop(i);
        int fd = watched[SESSIONS_MAX].fd < 0 ? -1 : accept4(watched[SESSIONS_MAX].fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) add(fd, NULL, 0);
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

static void take(void) {
    handoff_connection c;
    int got;
    pthread_mutex_lock(&mutex);
    while ((got = handoff_next_connection(h, &c, sizeof c)) == 1) add(c.fd, c.state, c.state_size);
    pthread_mutex_unlock(&mutex);
    if (got < 0) die("next_connection");
}

static void give(void) {
    pthread_mutex_lock(&mutex);
    while (count > 0) {
        session *s = &sessions[count - 1];
        if (handoff_put_connection(h, watched[count - 1].fd, "session", s, sizeof *s) < 0) die("put_connection");
        drop(count - 1);
    }
    pthread_mutex_unlock(&mutex);
}

static void on_connections(handoff *handle, const handoff_event *event, void *user) {
    (void)handle, (void)user;
    if (event->kind == HANDOFF_EVENT_CONNECTIONS) take();
}

static void on_drain(handoff *handle, const handoff_event *event, void *user) {
    (void)handle, (void)user;
    const char *start = getenv("SESSIONS_GIVE");
    pthread_mutex_lock(&mutex);
    close(watched[SESSIONS_MAX].fd);
    watched[SESSIONS_MAX].fd = -1;
    pthread_mutex_unlock(&mutex);
    fprintf(stderr, "%ld leaves\n", (long)getpid());
    while (start && access(start, F_OK) != 0) usleep(1000);
    int code;
    do {
        give();
        code = handoff_done(h, event->id);
        if (code == HANDOFF_ESTATE) take(); /* what came meanwhile goes the same way */
    } while (code == HANDOFF_ESTATE);
    if (code < 0) die("done");
}

static void on_term(int signal) { (void)signal, handoff_stop(h); }

int main(void) {
    char why[512];
    pthread_t thread;
    handoff_config *config = handoff_config_new();
    handoff_config_set_int(config, HANDOFF_OPT_MODES, HANDOFF_MODE_OVERLAP);
    if (handoff_detect_role(config, &h, why, sizeof why) < 0) return fprintf(stderr, "%s\n", why), 1;
    handoff_config_free(config);
    signal(SIGTERM, on_term);
    handoff_on_drain(h, on_drain, NULL, NULL);
    handoff_on_connections(h, on_connections, NULL, NULL);
    watched[SESSIONS_MAX].fd = handoff_take_listener(h, "kv", 0);
    if (watched[SESSIONS_MAX].fd < 0 || handoff_wait_for_begin(h, -1) < 0) die("begin");
    if (handoff_announce_ready(h, NULL, -1) < 0) die("ready");
    if (pthread_create(&thread, NULL, serve_clients, NULL) != 0) die("thread");
    int end = handoff_serve(h);
    if (end < 0) die("serve");
    _exit(0);
}
