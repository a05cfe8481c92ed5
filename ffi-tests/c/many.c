/* many.c - a daemon in one poll() loop that takes every listener it is given and accepts from each until EAGAIN, for the
 * tests of many listeners and of the mode of a shared one.  It has no data.
 *
 * A connection gets one line, "PONG <pid> <build>", whatever it asks. */
#define _GNU_SOURCE
#include <errno.h>
#include <handoff.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { LISTENERS_MAX = 1000, PATIENCE_S = 5 };

static struct pollfd p[1 + LISTENERS_MAX]; /* the library's descriptor, then the listeners */
static int listeners;
static handoff *h;

static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }

static int complain(const char *what) {
    char why[512];
    return fprintf(stderr, "many: %s: %s\n", what, h ? handoff_errmsg(h, why, sizeof why) : ""), 1;
}

static int take_all(void) {
    for (listeners = 0; listeners < LISTENERS_MAX; listeners++) {
        int fd = handoff_take_listener(h, NULL, (uint32_t)listeners);
        if (fd == HANDOFF_ENONAME) break; /* that was the last */
        if (fd < 0) return fd;
        p[1 + listeners] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    return 0;
}

static void close_all(void) {
    while (listeners > 0) close(p[listeners--].fd);
}

static void answer(int fd) {
    char request[256], reply[64];
    int size = snprintf(reply, sizeof reply, "PONG %d " BUILD "\n", (int)getpid());
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = PATIENCE_S}, sizeof(struct timeval));
    if (recv(fd, request, sizeof request, 0) > 0) send(fd, reply, (size_t)size, MSG_NOSIGNAL);
    close(fd);
}

static void accept_until_eagain(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == EINTR || errno == ECONNABORTED)
        if (fd >= 0) answer(fd);
}

int main(void) {
    char why[256];
    int got = 0;
    if (handoff_detect_role(NULL, &h, why, sizeof why) < 0) return fprintf(stderr, "many: %s\n", why), 1;
    signal(SIGTERM, on_sigterm);
    p[0] = (struct pollfd){.fd = handoff_pollfd(h), .events = POLLIN};
    if (take_all() < 0) return complain("cannot take the listeners");
    if (handoff_wait_for_begin(h, -1) < 0) return complain("cannot begin");
    if (handoff_announce_ready(h, NULL, -1) < 0) return complain("not wanted");
    while (got >= 0) {
        if (poll(p, (nfds_t)(1 + listeners), -1) < 0) continue;
        for (int i = 1; i <= listeners; i++)
            if (p[i].revents) accept_until_eagain(p[i].fd);
        for (handoff_event e; p[0].revents && (got = handoff_dispatch(h, &e, sizeof e)) > 0;) switch (e.kind) {
            case HANDOFF_EVENT_DRAIN: close_all(); handoff_done(h, e.id); break;
            case HANDOFF_EVENT_SEAL: handoff_sealed(h, e.id, NULL, 0); break;
            case HANDOFF_EVENT_RESUME:
                take_all() < 0 ? handoff_failed(h, e.id, "cannot take the listeners") : handoff_done(h, e.id);
                break;
            case HANDOFF_EVENT_REPLACED: _exit(0);
            case HANDOFF_EVENT_STOPPED: handoff_free(h); return 0;
        }
    }
    return complain("dispatch");
}
