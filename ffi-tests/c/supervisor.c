/* supervisor.c DIR [MODE] - a program that embeds a supervisor, and does what the lines on standard input say, for the tests.
 *
 *   bind NAME PORT            binds 127.0.0.1:PORT and holds it   -> bind CODE PORT
 *   perform WORD ...          perform_handoff                     -> perform CODE RESULT PID GENERATION TEXT
 *   resume WORD ...           resume_from_journal                 -> resume, the same
 *   await                     until the pidfd is readable         -> await dead
 *   free                      ends the supervisor, makes another  -> free 0
 *
 * A WORD is an argument of the daemon, the first its program; or name=MS, an option; or NAME=VALUE of its environment.
 * TEXT is the reason of the outcome, or the error's.  A line "log: ..." may come at any time.
 *
 * SIGUSR1 cancels from its handler, SIGUSR2 from a thread; SIGHUP forks a child that only lives.
 * MODE: ignore, no-wait (SA_NOCLDWAIT), reap (wait(-1) in a thread without end). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *dir;
static handoff_supervisor *s;
static int pidfd = -1;
static FILE *answers; /* not standard output, which the daemons inherit */

static void fail(const char *what) {
    fprintf(stderr, "supervisor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_usr1(int signal) { (void)signal; handoff_supervisor_cancel(s); }

static void on_hup(int signal) {
    (void)signal;
    if (fork() == 0)
        for (;;) pause();
}

static void *cancel_at_usr2(void *set) {
    for (int got; sigwait(set, &got) == 0;) handoff_supervisor_cancel(s);
    return NULL;
}

static void *reap_everybody(void *unused) {
    for (;;)
        if (waitpid(-1, NULL, 0) < 0) usleep(1000); /* ECHILD: none yet */
    return unused;
}

static void print(void *user, int32_t level, const char *target, const char *text) {
    (void)user, (void)target;
    if (level <= HANDOFF_LOG_INFO) fprintf(answers, "log: %s\n", text);
}

static void make(void) {
    char path[512], why[512];
    handoff_config *c = handoff_config_new();
    handoff_config_set_str(c, HANDOFF_OPT_BUILD_ID, "test");
    handoff_set_log(c, print, NULL, NULL);
    if (handoff_supervisor_new(c, &s, why, sizeof why) != HANDOFF_OK) exit((fprintf(stderr, "new: %s\n", why), 1));
    handoff_config_free(c);
    snprintf(path, sizeof path, "%s/kv.journal", dir);
    if (handoff_supervisor_set_journal(s, path) != HANDOFF_OK) fail(handoff_supervisor_errmsg(s));
}

static void bind_one(const char *name, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), code;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 4096) != 0) fail("bind");
    getsockname(fd, (struct sockaddr *)&at, &size);
    code = handoff_supervisor_add_listener(s, name, fd);
    close(fd);
    fprintf(answers, "bind %d %d\n", code, ntohs(at.sin_port));
}

static handoff_config *spawn_of(char *words) {
    static const struct { const char *name; int32_t option; } times[] = {
        {"deadline=", HANDOFF_OPT_DEADLINE_MS}, {"grace=", HANDOFF_OPT_DRAIN_GRACE_MS}, {"hello=", HANDOFF_OPT_HELLO_MS},
        {"ready=", HANDOFF_OPT_READY_MS}, {"death=", HANDOFF_OPT_INCUMBENT_DEATH}, {"probation=", HANDOFF_OPT_PROBATION_MS}};
    char path[512], *rest;
    handoff_config *spawn = handoff_config_new();
    int wrong = 0;
    snprintf(path, sizeof path, "%s/control", dir);
    wrong |= handoff_config_set_str(spawn, HANDOFF_OPT_CONTROL_PATH, path);
    snprintf(path, sizeof path, "%s/data", dir);
    wrong |= handoff_config_set_str(spawn, HANDOFF_OPT_DATA_DIR, path);
    for (char *word = strtok_r(words, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
        size_t i = 0, all = sizeof times / sizeof *times;
        while (i < all && strncmp(word, times[i].name, strlen(times[i].name)) != 0) i++;
        if (i < all) wrong |= handoff_config_set_int(spawn, times[i].option, atol(word + strlen(times[i].name)));
        else wrong |= handoff_config_set_str(spawn, strchr(word, '=') ? HANDOFF_OPT_ENV : HANDOFF_OPT_ARG, word);
    }
    if (wrong) fail("a setting");
    return spawn;
}

static void run(const char *what, char *words) {
    handoff_outcome o = {0};
    handoff_config *spawn = spawn_of(words);
    int code = *what == 'p' ? handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o)
                            : handoff_supervisor_resume_from_journal(s, spawn, &o, sizeof o);
    handoff_config_free(spawn);
    if (code == HANDOFF_OK) {
        if (pidfd >= 0) close(pidfd);
        pidfd = o.pidfd;
        if ((o.pid > 0) != (o.pidfd >= 0) || o.size != sizeof o) fail("the outcome makes no sense");
    }
    fprintf(answers, "%s %d %d %d %d %s\n", what, code, o.result, o.pid, (int)o.generation,
            code < 0 ? handoff_supervisor_errmsg(s) : o.reason);
}

static void set_mode(const char *mode) {
    static sigset_t usr2;
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_usr1};
    sigaction(SIGUSR1, &action, NULL); /* without SA_RESTART: it interrupts calls */
    signal(SIGHUP, on_hup);
    sigemptyset(&usr2);
    sigaddset(&usr2, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &usr2, NULL);
    if (pthread_create(&thread, NULL, cancel_at_usr2, &usr2) != 0) fail("thread");
    action = (struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    if (strcmp(mode, "ignore") == 0) signal(SIGCHLD, SIG_IGN);
    if (strcmp(mode, "no-wait") == 0) sigaction(SIGCHLD, &action, NULL);
    if (strcmp(mode, "reap") == 0 && pthread_create(&thread, NULL, reap_everybody, NULL) != 0) fail("thread");
}

int main(int argc, char **argv) {
    char line[8192], name[64];
    int port;
    if (argc < 2) return 2;
    dir = argv[1];
    if (!(answers = fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), "w")) || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) fail("stdout");
    setvbuf(answers, NULL, _IOLBF, 0);
    make();
    set_mode(argc > 2 ? argv[2] : "");
    while (fgets(line, sizeof line, stdin) || (ferror(stdin) && errno == EINTR)) {
        if (ferror(stdin)) { clearerr(stdin); continue; } /* a signal that came between two lines */
        if (sscanf(line, "bind %63s %d", name, &port) == 2) bind_one(name, port);
        else if (strncmp(line, "perform ", 8) == 0) run("perform", line + 8);
        else if (strncmp(line, "resume ", 7) == 0) run("resume", line + 7);
        else if (strcmp(line, "await\n") == 0) {
            while (poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, -1) < 0) {}
            fputs("await dead\n", answers);
        } else if (strcmp(line, "free\n") == 0) {
            handoff_supervisor_free(s);
            make();
            fputs("free 0\n", answers);
        } else fail("a line that makes no sense");
    }
    handoff_supervisor_free(s);
    return 0;
}
