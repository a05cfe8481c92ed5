/* crowd.c - has as many descriptors on the way between two processes as it is told, until its input ends: another process of
 * the same user can not send any then, if its own RLIMIT_NOFILE is lower (unix(7), ETOOMANYREFS).  It tries that itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 100 };

static ssize_t send_batch(int to) {
    union { struct cmsghdr header; char bytes[CMSG_SPACE(BATCH * sizeof(int))]; } control = {0};
    int fds[BATCH] = {0};
    struct msghdr message = {.msg_iov = &(struct iovec){"x", 1}, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    return sendmsg(to, &message, MSG_NOSIGNAL);
}

int main(int argc, char **argv) {
    int pair[2];
    char end;
    struct rlimit few = {BATCH, BATCH};
    if (argc != 2 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) return 2;
    for (int sent = 0; sent < atoi(argv[1]); sent += BATCH)
        if (send_batch(pair[0]) != 1) return perror("sendmsg"), 1;
    if (setrlimit(RLIMIT_NOFILE, &few) != 0 || send_batch(pair[0]) != -1 || errno != ETOOMANYREFS)
        return fprintf(stderr, "nothing is too many here: %s\n", strerror(errno)), 1;
    puts("crowded");
    fflush(stdout);
    return read(0, &end, 1) == 0 ? 0 : 1;
}
