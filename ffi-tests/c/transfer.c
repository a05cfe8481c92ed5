/* transfer.c SCENARIO REPORT - what may move and what may not, under a supervisor; what is not as promised goes to REPORT.
 * "gives" is an incumbent; "blocks" is one that first gives more than anybody takes, "alone" the same without helper
 * thread, "loses" one whose successor has no room. "unhealthy", "dies", "takes", "sleeps" (takes nothing), "shrinks" (has no
 * room) and "refused" are successors. */
#define _GNU_SOURCE
#include "scenario.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { MEMFD_BYTES = 64 << 20, STATE_BYTES_MAX = 60 * 1024, NAME_BYTES_MAX = 255, BLOBS = 6 };

static int resumed;
static char most[STATE_BYTES_MAX + 1], longest[NAME_BYTES_MAX + 2];

/* Both ends of everything that has two: what is written into the first is read from the second. */
enum { TCP, UNIX, PIPE, PTY, PAIRS };
static const char *const pair_names[PAIRS][2] = {
    {"tcp a", "tcp b"}, {"unix a", "unix b"}, {"pipe in", "pipe out"}, {"pty master", "pty slave"}};
static int pairs[PAIRS][2], udp, file, event_fd, memory, own_file;

static int tcp_pair(int fds[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (void *)&address, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (void *)&address, &size) == 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fds[0], (void *)&address, size) == 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return close(listener);
}

static void make_all(void) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(tcp_pair(pairs[TCP]) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[UNIX]) == 0);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pairs[PIPE][0] = ends[1], pairs[PIPE][1] = ends[0];
    pairs[PTY][0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(grantpt(pairs[PTY][0]) == 0 && unlockpt(pairs[PTY][0]) == 0);
    pairs[PTY][1] = open(ptsname(pairs[PTY][0]), O_RDWR | O_NOCTTY | O_CLOEXEC);
    udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(bind(udp, (void *)&any, sizeof any) == 0);
    event_fd = eventfd(40, EFD_CLOEXEC);
    file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(write(file, "read on", 7) == 7 && lseek(file, 5, SEEK_SET) == 5);
    own_file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(write(own_file, "own", 3) == 3);
    memory = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(ftruncate(memory, MEMFD_BYTES) == 0 && pwrite(memory, "end", 3, MEMFD_BYTES - 3) == 3);
}

static void moves(int from, int to) {
    char text[8] = "";
    CHECK(write(from, "abc\n", 4) == 4);
    CHECK(read(to, text, sizeof text) == 4 && memcmp(text, "abc\n", 4) == 0);
}

/* Everything works as if nothing had happened. */
static void all_work(void) {
    for (int i = 0; i < PAIRS; i++) moves(pairs[i][0], pairs[i][1]);
    moves(pairs[TCP][1], pairs[TCP][0]);
    moves(pairs[UNIX][1], pairs[UNIX][0]);
    CHECK(fcntl(memory, F_GET_SEALS) == 0);
    CHECK(pwrite(memory, "again", 5, 0) == 5 && pwrite(own_file, "own", 3, 0) == 3);
}

/* Of both puts. */
static void bad_descriptors(void) {
    int closed = dup(0), directory = open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    close(closed);
    IS(handoff_put_connection(h, closed, "n", NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, -1, "n", NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, directory, "n", NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, handoff_pollfd(h), "n", NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_state_fd(h, "n", closed), HANDOFF_EINVAL);
    IS(handoff_put_state_fd(h, "n", directory), HANDOFF_EINVAL);
    IS(handoff_put_state_fd(h, "n", udp), HANDOFF_EINVAL);
    close(directory);
}

/* Whatever is open and nobody here has opened is the library's: its sockets, lock, gate and page are refused by what they
 * are, also through another number. */
static void own_descriptors(void) {
    int refused = 0, mine = 0;
    for (int fd = 3; fd < 100; fd++) {
        struct stat found;
        if (fstat(fd, &found) != 0) continue;
        for (int i = 0; i < PAIRS; i++) mine |= fd == pairs[i][0] || fd == pairs[i][1];
        mine |= fd == udp || fd == file || fd == event_fd || fd == memory || fd == own_file;
        if (!mine && (S_ISSOCK(found.st_mode) || S_ISREG(found.st_mode))) {
            int again = dup(fd);
            IS(handoff_put_connection(h, fd, "n", NULL, 0), HANDOFF_EINVAL);
            IS(handoff_put_connection(h, again, "n", NULL, 0), HANDOFF_EINVAL);
            if (S_ISREG(found.st_mode)) IS(handoff_put_state_fd(h, "n", fd), HANDOFF_EINVAL);
            close(again);
            refused++;
        }
        mine = 0;
    }
    IS(refused, 6); /* session, transfer, control path; lock, gate, page */
}

static void bad_input(void) {
    int again = dup(pairs[TCP][0]);
    bad_descriptors();
    IS(handoff_put_connection(h, udp, NULL, NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, udp, "", NULL, 0), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, udp, longest, NULL, 0), HANDOFF_ETOOBIG);
    IS(handoff_put_connection(h, udp, "n", NULL, 1), HANDOFF_EINVAL);
    IS(handoff_put_connection(h, udp, "n", most, sizeof most), HANDOFF_ETOOBIG);
    IS(handoff_put_connection(h, pairs[TCP][0], "n", NULL, 0), HANDOFF_EDUPLICATE);
    IS(handoff_put_connection(h, again, "n", NULL, 0), HANDOFF_EDUPLICATE);
    IS(handoff_put_connection(h, event_fd, "n", NULL, 0), HANDOFF_EDUPLICATE);
    IS(handoff_put_state(h, NULL, "v", 1), HANDOFF_EINVAL);
    IS(handoff_put_state(h, "", "v", 1), HANDOFF_EINVAL);
    IS(handoff_put_state(h, longest, "v", 1), HANDOFF_ETOOBIG);
    IS(handoff_put_state(h, "n", NULL, 1), HANDOFF_EINVAL);
    IS(handoff_put_state(h, "n", "v", SIZE_MAX), HANDOFF_ETOOBIG);
    IS(handoff_put_state(h, "copy", "v", 1), HANDOFF_EDUPLICATE);
    IS(handoff_put_state_fd(h, "copy", memory), HANDOFF_EDUPLICATE);
    IS(handoff_put_state(h, "memory", "v", 1), HANDOFF_EDUPLICATE);
    close(again);
}

static void put_all(void) {
    struct stat found;
    IS(fstat(memory, &found), 0);
    for (int i = 0; i < PAIRS; i++)
        for (int end = 0; end < 2; end++)
            IS(handoff_put_connection(h, pairs[i][end], pair_names[i][end], &i, sizeof i), HANDOFF_OK);
    IS(handoff_put_connection(h, event_fd, "eventfd", NULL, 0), HANDOFF_OK);
    IS(handoff_put_connection(h, file, "file", most, sizeof most - 1), HANDOFF_OK);
    IS(handoff_put_state(h, "copy", "one\0two", 7), HANDOFF_OK);
    IS(handoff_put_state(h, "empty", NULL, 0), HANDOFF_OK);
    IS(handoff_put_state(h, "inode", &found.st_ino, sizeof found.st_ino), HANDOFF_OK);
    longest[NAME_BYTES_MAX] = 0;
    IS(handoff_put_state(h, longest, "long", 4), HANDOFF_OK);
    longest[NAME_BYTES_MAX] = 'n';
    IS(handoff_put_state_fd(h, "memory", memory), HANDOFF_OK);
    IS(handoff_put_state_fd(h, "file", own_file), HANDOFF_OK);
}

static void too_early_or_late(void) {
    IS(handoff_put_state(h, "k", "v", 1), HANDOFF_ESTATE);
    IS(handoff_put_state_fd(h, "k", memory), HANDOFF_ESTATE);
    IS(handoff_put_connection(h, udp, "n", NULL, 0), HANDOFF_ESTATE);
}

/* Nobody takes it: the window closes, and the call waits until the event is over. */
static void put_until_it_is_over(uint64_t id) {
    int code = HANDOFF_OK, count = 0;
    for (; code == HANDOFF_OK && count < 1000; count++) {
        char key[16];
        snprintf(key, sizeof key, "%d", count);
        code = handoff_put_state(h, key, most, 10);
    }
    IS(code, HANDOFF_ESTALE);
    if (!is("loses")) IS(count, 5); /* four are on the way */
    IS(handoff_put_state(h, "k", "v", 1), HANDOFF_ESTALE);
    IS(handoff_put_connection(h, event_fd, "n", NULL, 0), HANDOFF_ESTALE);
    code = handoff_done(h, id);
    /* A successor that is gone is known before the supervisor has cancelled the event. */
    CHECK(code == HANDOFF_ESTALE || (is("loses") && code == HANDOFF_OK));
}

/* Against the rules: its number is free for somebody else before the batch is sent. */
static void put_and_close(void) {
    int fd = dup(udp);
    IS(handoff_put_connection(h, fd, "closed", NULL, 0), HANDOFF_OK);
    close(fd);
}

static void on_event(const handoff_event *e) {
    switch (e->kind) {
    case HANDOFF_EVENT_DRAIN:
        if (is("closes") && !resumed) {
            put_and_close();
            IS(handoff_done(h, e->id), HANDOFF_OK);
            break;
        }
        if (!is("gives") && !resumed) {
            put_until_it_is_over(e->id);
            break;
        }
        own_descriptors(); /* while there are no duplicates of mine */
        put_all();
        bad_input();
        IS(handoff_done(h, e->id), HANDOFF_OK);
        too_early_or_late();
        break;
    case HANDOFF_EVENT_SEAL:
        if (is("closes") && !resumed) {
            IS(handoff_sealed(h, e->id, NULL, 0), HANDOFF_EINVAL);
            break;
        }
        IS(handoff_put_connection(h, udp, "udp", "u", 1), HANDOFF_OK); /* also here */
        IS(handoff_sealed(h, e->id, NULL, 0), HANDOFF_OK);
        too_early_or_late();
        break;
    case HANDOFF_EVENT_RESUME:
        too_early_or_late();
        all_work();
        IS(handoff_done(h, e->id), HANDOFF_OK);
        resumed++;
        fprintf(stderr, "everything works on\n");
    }
}

static void no_state(void) {
    const void *data = "untouched";
    size_t size = 9;
    IS(handoff_get_state(h, "nobody gave it", &data, &size), HANDOFF_ENONAME);
    IS(handoff_take_state_fd(h, "nobody gave it"), HANDOFF_ENONAME);
    IS(handoff_get_state(h, NULL, &data, &size), HANDOFF_EINVAL);
    IS(handoff_get_state(h, "copy", NULL, &size), HANDOFF_EINVAL);
    IS(handoff_get_state(h, "copy", &data, NULL), HANDOFF_EINVAL);
    IS(handoff_take_state_fd(h, NULL), HANDOFF_EINVAL);
    CHECK(size == 9 && strcmp(data, "untouched") == 0);
}

static int incumbent(void) {
    handoff_connection c;
    make_all();
    too_early_or_late();
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    no_state();
    IS(handoff_announce_ready(h, NULL, -1), HANDOFF_OK);
    IS(handoff_next_connection(h, &c, sizeof c), 0);
    IS(by_poll(on_event), HANDOFF_REPLACED);
    return finish(0);
}

static void read_state(void) {
    const void *data, *again;
    size_t size;
    struct stat found;
    char text[4] = "";
    no_state();
    IS(handoff_get_state(h, "copy", &data, &size), HANDOFF_OK);
    CHECK(size == 7 && memcmp(data, "one\0two", 7) == 0);
    IS(handoff_get_state(h, "copy", &again, &size), HANDOFF_OK);
    CHECK(data == again);
    IS(handoff_get_state(h, "empty", &data, &size), HANDOFF_OK);
    CHECK(size == 0 && data != NULL);
    longest[NAME_BYTES_MAX] = 0;
    IS(handoff_get_state(h, longest, &data, &size), HANDOFF_OK);
    CHECK(size == 4 && memcmp(data, "long", 4) == 0);
    IS(handoff_get_state(h, "memory", &data, &size), HANDOFF_EINVAL); /* it is to be taken */
    memory = handoff_take_state_fd(h, "memory");
    IS(handoff_take_state_fd(h, "memory"), HANDOFF_ENONAME); /* once */
    IS(handoff_get_state(h, "inode", &data, &size), HANDOFF_OK);
    IS(fstat(memory, &found), 0);
    CHECK(memcmp(data, &found.st_ino, sizeof found.st_ino) == 0 && found.st_size == MEMFD_BYTES); /* no copy */
    CHECK(pread(memory, text, 3, MEMFD_BYTES - 3) == 3 && strcmp(text, "end") == 0);
    CHECK(fcntl(memory, F_GETFD) == FD_CLOEXEC);
    own_file = handoff_take_state_fd(h, "file");
    CHECK(pread(own_file, text, 3, 0) == 3 && strcmp(text, "own") == 0);
}

static void take_all(void) {
    handoff_connection c;
    char text[8] = "";
    uint64_t value;
    int kind;
    IS(handoff_next_connection(h, &c, sizeof c - 1), HANDOFF_EINVAL);
    IS(handoff_next_connection(h, NULL, sizeof c), HANDOFF_EINVAL);
    for (int i = 0; i < PAIRS; i++)
        for (int end = 0; end < 2; end++) {
            IS(handoff_next_connection(h, &c, sizeof c), 1);
            CHECK(c.size == sizeof c && strcmp(c.name, pair_names[i][end]) == 0 && c.state_size == sizeof kind);
            memcpy(&kind, c.state, sizeof kind);
            IS(kind, i);
            IS(fcntl(c.fd, F_GETFD), FD_CLOEXEC);
            pairs[i][end] = c.fd;
        }
    IS(handoff_next_connection(h, &c, sizeof c), 1);
    CHECK(strcmp(c.name, "eventfd") == 0 && c.state_size == 0);
    CHECK(read(c.fd, &value, sizeof value) == sizeof value && value == 40);
    IS(handoff_next_connection(h, &c, sizeof c), 1);
    CHECK(strcmp(c.name, "file") == 0 && c.state_size == STATE_BYTES_MAX);
    CHECK(memcmp(c.state, most, STATE_BYTES_MAX) == 0);
    CHECK(read(c.fd, text, sizeof text) == 2 && memcmp(text, "on", 2) == 0); /* where the incumbent was */
    IS(handoff_next_connection(h, &c, sizeof c), 1);
    CHECK(strcmp(c.name, "udp") == 0 && c.state_size == 1);
    udp = c.fd;
    IS(handoff_next_connection(h, &c, sizeof c), 0);
    IS(handoff_next_connection(h, &c, sizeof c), 0);
    all_work();
}

static int successor(void) {
    handoff_connection c;
    handoff_readiness r = {.size = sizeof r, .flags = is("unhealthy") ? HANDOFF_READY_UNHEALTHY : 0};
    const void *data;
    size_t size;
    IS(handoff_get_state(h, "copy", &data, &size), HANDOFF_ESTATE);
    IS(handoff_take_state_fd(h, "memory"), HANDOFF_ESTATE);
    IS(handoff_next_connection(h, &c, sizeof c), HANDOFF_ESTATE);
    struct pollfd p = {.fd = handoff_pollfd(h), .events = POLLIN};
    if (is("sleeps")) {
        poll(&p, 1, -1); /* the supervisor has answered: now warmed is told at once */
        IS(handoff_warmed(h), HANDOFF_OK);
        for (;;) pause();
    }
    if (is("shrinks")) {
        struct rlimit few = {40, 40};
        handoff_event e;
        poll(&p, 1, -1);
        IS(handoff_dispatch(h, &e, sizeof e), 0); /* what the supervisor's answer brings is here */
        IS(setrlimit(RLIMIT_NOFILE, &few), 0);
        for (int fd = 0; (fd = dup(0)) >= 0 && fd < 36;) {}
    }
    if (is("shrinks") || is("refused")) {
        IS(handoff_wait_for_begin(h, -1), HANDOFF_EABORTED);
        return finish(0);
    }
    IS(handoff_wait_for_begin(h, -1), HANDOFF_OK);
    IS(handoff_next_connection(h, &c, sizeof c), HANDOFF_ESTATE); /* not before the commit */
    read_state();
    if (is("dies")) raise(SIGKILL);
    int ready = handoff_announce_ready(h, &r, -1);
    if (is("unhealthy")) {
        IS(ready, HANDOFF_EABORTED);
        IS(handoff_next_connection(h, &c, sizeof c), HANDOFF_EABORTED);
        return finish(0);
    }
    IS(ready, HANDOFF_OK);
    take_all();
    IS(by_poll(on_event), HANDOFF_STOPPED);
    handoff_free(h);
    return finish(0);
}

int main(int argc, char **argv) {
    char err[512];
    if (argc != 3 || !freopen(argv[2], "a", stderr)) return 2;
    setvbuf(stderr, NULL, _IOLBF, 0);
    signal(SIGTERM, on_sigterm);
    scenario = argv[1];
    memset(most, 's', sizeof most);
    memset(longest, 'n', NAME_BYTES_MAX + 1);
    handoff_config *config = handoff_config_new();
    if (is("alone") || is("sleeps")) handoff_config_set_int(config, HANDOFF_OPT_HELPER_THREAD, 0);
    int role = handoff_detect_role(config, &h, err, sizeof err);
    handoff_config_free(config);
    if (role < 0) return fprintf(stderr, "detect_role: %s\n", err), 3;
    return role == HANDOFF_SUCCESSOR ? successor() : incumbent();
}
