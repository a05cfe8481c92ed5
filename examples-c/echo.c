/* echo.c - the smallest daemon that can be replaced: one poll() loop, one main for a cold start and a successor. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <handoff.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
enum { LISTENER = 1, FIRST = 2, CLIENTS_MAX = 256, END = FIRST + CLIENTS_MAX, MARGIN_MS = 100 };
static struct pollfd p[END];
static handoff *h;
static void on_sigterm(int signal) { (void)signal; handoff_stop(h); }
static int complain(const char *why) { return fprintf(stderr, "echo: %s\n", why), 1; }

static int echo(struct pollfd *c) { /* what cannot be sent yet stays in the kernel: a slow reader stalls nobody */
    char data[4096];
    ssize_t n = recv(c->fd, data, sizeof data, MSG_PEEK | MSG_DONTWAIT), sent = n;
    if (n > 0 && (sent = send(c->fd, data, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0) recv(c->fd, data, (size_t)sent, 0);
    c->events = sent < n ? POLLOUT : POLLIN;
    return sent > 0 || (sent < 0 && errno == EAGAIN);
}
int main(void) {
    char why[256];
    int clients = 0, i, got = 0;
    uint64_t drain = 0; /* the drain that waits for its answer */
    for (i = 0; i < END; i++) p[i] = (struct pollfd){.fd = -1, .events = POLLIN}; /* poll skips -1 */
    if (handoff_detect_role(NULL, &h, why, sizeof why) < 0) return complain(why);
    signal(SIGTERM, on_sigterm);
    if ((p[LISTENER].fd = handoff_take_listener(h, "echo", 0)) < 0 || handoff_wait_for_begin(h, -1) < 0 ||
        handoff_announce_ready(h, NULL, -1) < 0) return complain(handoff_errmsg(h, why, sizeof why));
    for (p[0].fd = handoff_pollfd(h); got >= 0;) {
        int left_ms = drain ? handoff_remaining_ms(h, drain) - MARGIN_MS : -1;
        if (drain && (clients == 0 || left_ms <= 0)) { handoff_done(h, drain); drain = 0; continue; }
        p[LISTENER].events = clients < CLIENTS_MAX ? POLLIN : 0; /* when full, the next one waits in the backlog */
        if (poll(p, END, left_ms) < 0) continue;
        for (handoff_event e; p[0].revents && (got = handoff_dispatch(h, &e, sizeof e)) > 0;) switch (e.kind) {
            case HANDOFF_EVENT_DRAIN: drain = e.id; close(p[LISTENER].fd); p[LISTENER].fd = -1; break;
            case HANDOFF_EVENT_SEAL: handoff_sealed(h, e.id, NULL, 0); break; /* there is no data to close */
            case HANDOFF_EVENT_RESUME: drain = 0; p[LISTENER].fd = handoff_take_listener(h, "echo", 0);
                p[LISTENER].fd < 0 ? handoff_failed(h, e.id, "no listener") : handoff_done(h, e.id); break;
            case HANDOFF_EVENT_REPLACED: _exit(0);
            case HANDOFF_EVENT_STOPPED: handoff_free(h); return 0; }
        for (i = FIRST; i < END; i++)
            if (p[i].fd >= 0 && p[i].revents && !echo(&p[i])) { close(p[i].fd); p[i].fd = -1; clients--; }
        for (i = FIRST; p[LISTENER].fd >= 0 && p[LISTENER].revents && i < END; i++)
            if (p[i].fd < 0 && (p[i] = (struct pollfd){.fd = accept(p[LISTENER].fd, NULL, NULL), .events = POLLIN}).fd >= 0) { clients++; break; }
    }
    return complain(handoff_errmsg(h, why, sizeof why));
}
