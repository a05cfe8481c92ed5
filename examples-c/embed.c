/* embed.c - a program with a supervisor inside: it starts a daemon, replaces it at SIGHUP, and starts it again when it dies.
 *
 *   embed DIR PORT DAEMON [ARGUMENT...]     embed /tmp/kv 7777 build/kv
 *
 * DIR has the daemon's data, its control path and the journal.  The daemon gets 127.0.0.1:PORT as its listener "kv".  To
 * upgrade it, put another file in the place of DAEMON (mv, not cp) and send SIGHUP.  SIGTERM ends this program, and leaves
 * the daemon serving: the next embed finds it, and so does one that comes after kill -9. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIGNAL, DAEMON, ALL, AGAIN_MS = 500 };
static struct pollfd p[ALL] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
static handoff_supervisor *s;
static int pipe_in;
static volatile sig_atomic_t leaving;

static void on_signal(int number) {
    int before = errno;
    if (number == SIGTERM) {
        leaving = 1;
        handoff_supervisor_cancel(s); /* a handoff that is under way is undone, and its call returns */
    }
    if (write(pipe_in, number == SIGTERM ? "T" : "H", 1) < 0) {} /* a pipe that is full wakes us, too */
    errno = before;
}

static int fail(const char *what, const char *why) { return fprintf(stderr, "embed: %s: %s\n", what, why), 1; }

static int bound(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    socklen_t size = sizeof at;
    if (bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 4096) != 0) return -1;
    getsockname(fd, (struct sockaddr *)&at, &size);
    fprintf(stderr, "embed: listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    return fd;
}

static void tell(const handoff_outcome *o) {
    static const char *const words[] = {"?", "committed", "rolled back", "reverted", "started cold", "refused", "undecided",
                                        "failed", "adopted"};
    int known = o->result > 0 && o->result <= HANDOFF_OUTCOME_ADOPTED;
    fprintf(stderr, "embed: %s: process %d, %.1f ms without a server%s%s\n", words[known ? o->result : 0], (int)o->pid,
            (double)o->pause_ns / 1e6, *o->reason ? ": " : "", o->reason);
}

/* Starts the daemon, or replaces it.  From then on we hear of the death of whoever serves. */
static void perform(const handoff_config *spawn) {
    handoff_outcome o;
    if (handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o) < 0) {
        fail("no handoff", handoff_supervisor_errmsg(s));
        return;
    }
    tell(&o);
    if (p[DAEMON].fd >= 0) close(p[DAEMON].fd);
    p[DAEMON].fd = o.pidfd; /* -1 if nobody serves: poll skips it, and its timeout tries again */
}

/* The daemon of an embed before this one, with its listener; or nobody, and a listener of our own. */
static int resume(const handoff_config *spawn, int port) {
    handoff_outcome o;
    int found = handoff_supervisor_resume_from_journal(s, spawn, &o, sizeof o), fd;
    if (found < 0) return fail("cannot resume", handoff_supervisor_errmsg(s));
    if (found == HANDOFF_OK) {
        tell(&o);
        p[DAEMON].fd = o.pidfd;
        return 0;
    }
    if ((fd = bound(port)) < 0) return fail("bind", strerror(errno));
    if (handoff_supervisor_add_listener(s, "kv", fd) < 0) return fail("listener", handoff_supervisor_errmsg(s));
    close(fd); /* it has a duplicate */
    return 0;
}

static handoff_config *spawn_of(const char *dir, char **argv) {
    char path[4096];
    handoff_config *spawn = handoff_config_new();
    int wrong = 0;
    snprintf(path, sizeof path, "%s/control", dir);
    wrong |= handoff_config_set_str(spawn, HANDOFF_OPT_CONTROL_PATH, path);
    snprintf(path, sizeof path, "%s/data", dir);
    wrong |= handoff_config_set_str(spawn, HANDOFF_OPT_DATA_DIR, path);
    mkdir(dir, 0700), mkdir(path, 0700); /* if that fails, and matters, the daemon says so */
    while (*argv) wrong |= handoff_config_set_str(spawn, HANDOFF_OPT_ARG, *argv++);
    return wrong ? NULL : spawn;
}

int main(int argc, char **argv) {
    char text[4096], signals[64];
    int pipes[2];
    if (argc < 4) return fprintf(stderr, "usage: embed DIR PORT DAEMON [ARGUMENT...]\n"), 2;
    handoff_config *spawn = spawn_of(argv[1], argv + 3);
    if (!spawn) return fail("settings", argv[1]);
    if (handoff_supervisor_new(NULL, &s, text, sizeof text) < 0) return fail("supervisor", text);
    snprintf(text, sizeof text, "%s/kv.journal", argv[1]);
    if (handoff_supervisor_set_journal(s, text) < 0) return fail("journal", handoff_supervisor_errmsg(s));
    if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) != 0) return fail("pipe", strerror(errno));
    p[SIGNAL].fd = pipes[0], pipe_in = pipes[1];
    signal(SIGTERM, on_signal), signal(SIGHUP, on_signal);
    if (resume(spawn, atoi(argv[2])) != 0) return 1;
    if (p[DAEMON].fd < 0) perform(spawn);
    while (!leaving) { /* a program's own descriptors stand beside these two */
        int ready = poll(p, ALL, p[DAEMON].fd < 0 ? AGAIN_MS : -1), upgrade;
        if (ready < 0) continue; /* a signal: the pipe says which */
        upgrade = p[SIGNAL].revents && read(p[SIGNAL].fd, signals, sizeof signals) > 0;
        if (p[DAEMON].fd >= 0 && p[DAEMON].revents) { /* started again after a while: it may die at once, again and again */
            fprintf(stderr, "embed: the daemon has died\n");
            close(p[DAEMON].fd);
            p[DAEMON].fd = -1;
        }
        if (!leaving && (upgrade || ready == 0)) perform(spawn);
    }
    handoff_supervisor_free(s); /* the daemon serves on */
    handoff_config_free(spawn);
    return 0;
}
