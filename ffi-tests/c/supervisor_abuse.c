/* supervisor_abuse.c DIR STORE - every function of a supervisor with what it should not get, busy, forked and freed from
 * inside; STORE is a daemon, which is left behind dead. */
#define _GNU_SOURCE
#include "check.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *dir, *store;
static char text[1024];
static handoff_supervisor *s;
static handoff_outcome o;
static void destroy(void *user) { *(int *)user += 1; }

static int errmsg_has(const char *part) {
    int found = strstr(handoff_supervisor_errmsg(s), part) != NULL;
    if (!found) fprintf(stderr, "errmsg: %s\n", handoff_supervisor_errmsg(s));
    return found;
}

/* Each function, on one that cannot be used: `code`. */
static void refused_everywhere(handoff_supervisor *it, const handoff_config *spawn, int code) {
    IS(handoff_supervisor_add_listener(it, "x", 0), code);
    IS(handoff_supervisor_set_journal(it, "x"), code);
    IS(handoff_supervisor_perform_handoff(it, spawn, &o, sizeof o), code);
    IS(handoff_supervisor_resume_from_journal(it, spawn, &o, sizeof o), code);
    CHECK(strcmp(handoff_supervisor_errmsg(it), handoff_strerror(code)) == 0);
}

static handoff_config *spawn_of(const char *program) {
    handoff_config *spawn = handoff_config_new();
    snprintf(text, sizeof text, "%s/data", dir);
    IS(handoff_config_set_str(spawn, HANDOFF_OPT_DATA_DIR, text), HANDOFF_OK);
    snprintf(text, sizeof text, "%s/control", dir);
    IS(handoff_config_set_str(spawn, HANDOFF_OPT_CONTROL_PATH, text), HANDOFF_OK);
    if (program) IS(handoff_config_set_str(spawn, HANDOFF_OPT_ARG, program), HANDOFF_OK);
    return spawn;
}

static void no_supervisor_without_sense(void) {
    int32_t strange[] = {HANDOFF_OPT_CONTROL_PATH, HANDOFF_OPT_DATA_DIR, HANDOFF_OPT_ARG, HANDOFF_OPT_BINARY};
    handoff_supervisor *none = (handoff_supervisor *)text;
    IS(handoff_supervisor_new(NULL, NULL, NULL, 0), HANDOFF_EINVAL);
    IS(handoff_supervisor_new(NULL, NULL, text, 8), HANDOFF_EINVAL);
    CHECK(strcmp(text, "there is") == 0 || strlen(text) == 7);
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        handoff_config *c = handoff_config_new();
        IS(handoff_config_set_str(c, strange[i], "x"), HANDOFF_OK);
        IS(handoff_supervisor_new(c, &none, text, sizeof text), HANDOFF_EINVAL);
        CHECK(none == (handoff_supervisor *)text && strstr(text, "is not one of a supervisor"));
        handoff_config_free(c);
    }
}

static void listeners(void) {
    static char long_name[300];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), before = dup(fd), after, file = open("/dev/null", O_RDONLY);
    memset(long_name, 'x', sizeof long_name - 1);
    close(before);
    IS(handoff_supervisor_add_listener(s, NULL, fd), HANDOFF_EINVAL);
    CHECK(errmsg_has("name is NULL"));
    IS(handoff_supervisor_add_listener(s, "", fd), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "a:b", fd), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "a\nb", fd), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "\xff", fd), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, long_name, fd), HANDOFF_ETOOBIG);
    IS(handoff_supervisor_add_listener(s, "x", -1), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "x", INT_MIN), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "x", INT_MAX), HANDOFF_EINVAL);
    IS(handoff_supervisor_add_listener(s, "x", before), HANDOFF_EINVAL); /* closed */
    CHECK(errmsg_has("there is no descriptor"));
    IS(handoff_supervisor_add_listener(s, "x", file), HANDOFF_EINVAL);
    CHECK(errmsg_has("is not a socket"));
    after = dup(fd);
    IS(after, before); /* what was refused is closed again */
    IS(handoff_supervisor_add_listener(s, "datagrams", fd), HANDOFF_OK);
    IS(handoff_supervisor_add_listener(s, "datagrams", fd), HANDOFF_EDUPLICATE);
    IS(handoff_supervisor_add_listener(s, "datagrams", -1), HANDOFF_EDUPLICATE);
    close(after);
    close(fd);
    close(file);
}

static void journals(void) {
    IS(handoff_supervisor_set_journal(s, NULL), HANDOFF_EINVAL);
    IS(handoff_supervisor_set_journal(s, ""), HANDOFF_EINVAL);
    IS(handoff_supervisor_set_journal(s, "/"), HANDOFF_EINVAL);
    CHECK(errmsg_has("name of a file"));
    IS(handoff_supervisor_set_journal(s, "/nowhere/at/all/x.journal"), HANDOFF_OK);
    handoff_config *spawn = spawn_of(store);
    IS(handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o), HANDOFF_OK);
    IS(o.result, HANDOFF_OUTCOME_FAILED);
    CHECK(strstr(o.reason, "/nowhere/at/all") && o.pid == 0 && o.pidfd == -1 && o.size == sizeof o);
    handoff_config_free(spawn);
    IS(handoff_supervisor_set_journal(s, "x.journal"), HANDOFF_ESTATE);
}

static void log_nothing(void *user, int32_t level, const char *target, const char *line) {
    (void)user, (void)level, (void)target, (void)line;
}

/* Each spawn with one thing that it can not have. */
static void spawns(void) {
    struct { int32_t option; int64_t value; } integers[] = {
        {HANDOFF_OPT_MODES, HANDOFF_MODE_EXCLUSIVE}, {HANDOFF_OPT_FORKS, 0}, {HANDOFF_OPT_HELPER_THREAD, 1}, {HANDOFF_OPT_NETWORK_DATA_DIR, 0}};
    handoff_config *good = spawn_of("/nowhere/at/all"), *spawn = spawn_of(NULL);
    struct { handoff_outcome known; char newer[24]; } large;
    IS(handoff_supervisor_perform_handoff(s, NULL, &o, sizeof o), HANDOFF_EINVAL);
    CHECK(errmsg_has("spawn is NULL"));
    IS(handoff_supervisor_perform_handoff(s, good, NULL, sizeof o), HANDOFF_EINVAL);
    IS(handoff_supervisor_perform_handoff(s, good, &o, 592 - 1), HANDOFF_EINVAL);
    IS(handoff_supervisor_perform_handoff(s, good, &o, 0), HANDOFF_EINVAL);
    IS(handoff_supervisor_resume_from_journal(s, NULL, &o, sizeof o), HANDOFF_EINVAL);
    IS(handoff_supervisor_resume_from_journal(s, good, NULL, sizeof o), HANDOFF_EINVAL);
    IS(handoff_supervisor_resume_from_journal(s, good, &o, 8), HANDOFF_EINVAL);
    IS(handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o), HANDOFF_EINVAL);
    CHECK(errmsg_has("HANDOFF_OPT_ARG"));
    handoff_config_free(spawn);
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        spawn = spawn_of(store);
        IS(handoff_config_set_int(spawn, integers[i].option, integers[i].value), HANDOFF_OK);
        IS(handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o), HANDOFF_EINVAL);
        CHECK(errmsg_has("is not one of what a supervisor starts"));
        handoff_config_free(spawn);
    }
    spawn = spawn_of(store);
    IS(handoff_set_log(spawn, log_nothing, NULL, NULL), HANDOFF_OK);
    IS(handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o), HANDOFF_EINVAL);
    CHECK(errmsg_has("log"));
    handoff_config_free(spawn);
    memset(&large, 0x55, sizeof large); /* a program of a newer header */
    IS(handoff_supervisor_perform_handoff(s, good, &large.known, sizeof large), HANDOFF_OK);
    CHECK(large.known.size == sizeof o && large.newer[0] == 0x55 && large.known.result == HANDOFF_OUTCOME_FAILED);
    handoff_config_free(good);
}

static void too_much_for_the_kernel(void) {
    static char huge[200 * 1024];
    handoff_config *spawn = spawn_of(store);
    memset(huge, 'x', sizeof huge - 1);
    huge[1] = '=';
    IS(handoff_config_set_str(spawn, HANDOFF_OPT_ENV, huge), HANDOFF_OK);
    for (int i = 0; i < 2000; i++) handoff_config_set_str(spawn, HANDOFF_OPT_ARG, "");
    IS(handoff_supervisor_perform_handoff(s, spawn, &o, sizeof o), HANDOFF_OK);
    IS(o.result, HANDOFF_OUTCOME_FAILED);
    CHECK(strstr(o.reason, "could not be started"));
    handoff_config_free(spawn);
}

static int callbacks, frees, forks, is_child;
static handoff_config *busy_spawn, *slow, *slow_open; /* not on a stack: valgrind looks for them in forked children, too */
static pid_t child;

/* From inside a call everything of class [owner] is busy; free waits for its end. */
static void on_log(void *user, int32_t level, const char *target, const char *line) {
    (void)level, (void)target, (void)user;
    CHECK(line[0]);
    if (callbacks++ == 0) refused_everywhere(s, busy_spawn, HANDOFF_EBUSY);
    if (forks && strncmp(line, "prepare", 7) == 0) {
        forks = 0;
        child = fork();
        is_child = child == 0;
    }
    if (frees) handoff_supervisor_free(s);
    if (frees) refused_everywhere(s, busy_spawn, HANDOFF_ESTATE);
    frees = 0;
}

static int exit_code_of(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int is_alive(int pidfd) { return poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 0) == 0; }

static int journal_is_there(void) {
    struct stat found;
    snprintf(text, sizeof text, "%s/kv.journal", dir);
    return stat(text, &found) == 0;
}

static void forked(const handoff_config *spawn, int daemon) {
    pid_t using = fork();
    if (using == 0) {
        refused_everywhere(s, spawn, HANDOFF_EFORKED);
        IS(handoff_supervisor_cancel(s), HANDOFF_EFORKED);
        handoff_supervisor_free(s);
        _exit(failures != 0);
    }
    IS(exit_code_of(using), 0);
    CHECK(is_alive(daemon) && journal_is_there());
}


static void forked_in_a_callback(const handoff_config *spawn) {
    handoff_outcome outcome;
    forks = 1;
    int code = handoff_supervisor_perform_handoff(s, spawn, &outcome, sizeof outcome);
    if (is_child) { /* in the midst of a handoff of the parent, which does not notice */
        IS(code, HANDOFF_EFORKED);
        handoff_supervisor_free(s);
        _exit(failures != 0);
    }
    IS(code, HANDOFF_OK);
    IS(exit_code_of(child), 0);
    IS(outcome.result, HANDOFF_OUTCOME_COMMITTED);
    if (outcome.result != HANDOFF_OUTCOME_COMMITTED) fprintf(stderr, "%s\n", outcome.reason);
    close(outcome.pidfd);
}

/* Another thread of the program forks while a handoff is under way; the child frees. */
static void *fork_in_a_handoff(void *successor_waits) {
    for (int i = 0; i < 10000 && access(successor_waits, F_OK) != 0; i++) poll(NULL, 0, 1);
    pid_t freeing = fork();
    if (freeing == 0) {
        handoff_supervisor_free(s);
        _exit(0);
    }
    IS(exit_code_of(freeing), 0);
    IS(handoff_supervisor_perform_handoff(s, busy_spawn, &o, sizeof o), HANDOFF_EBUSY);
    unlink(successor_waits);
    return NULL;
}

static void add_bound(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 16) == 0);
    IS(handoff_supervisor_add_listener(s, "kv", fd), HANDOFF_OK);
    close(fd);
}

static void with_daemons(void) {
    int logs = 0, first;
    char journal[512], opening[512];
    pthread_t thread;
    handoff_config *c = handoff_config_new();
    snprintf(journal, sizeof journal, "%s/kv.journal", dir);
    snprintf(opening, sizeof opening, "%s/data/opening", dir);
    busy_spawn = spawn_of(store);
    slow = spawn_of(store);
    slow_open = spawn_of(store);
    handoff_config_set_str(slow, HANDOFF_OPT_ENV, "KV_FAULT=open-waits");
    handoff_config_set_str(slow_open, HANDOFF_OPT_ENV, "KV_FAULT=slow-open=500");
    handoff_set_log(c, on_log, &logs, destroy);
    IS(handoff_supervisor_new(c, &s, text, sizeof text), HANDOFF_OK);
    handoff_config_free(c);
    IS(handoff_supervisor_set_journal(s, journal), HANDOFF_OK);
    add_bound();
    CHECK(strcmp(handoff_supervisor_errmsg(s), "") == 0);
    IS(handoff_supervisor_perform_handoff(s, busy_spawn, &o, sizeof o), HANDOFF_OK);
    IS(o.result, HANDOFF_OUTCOME_STARTED_COLD);
    CHECK(o.pidfd >= 0 && fcntl(o.pidfd, F_GETFD) == FD_CLOEXEC && o.generation == 1 && o.handoff_id == 0);
    CHECK(callbacks > 0);
    first = o.pidfd;
    forked(busy_spawn, first);
    errno = 1234;
    IS(handoff_supervisor_cancel(s), HANDOFF_OK); /* nothing is under way */
    IS(errno, 1234);
    pthread_create(&thread, NULL, fork_in_a_handoff, opening);
    handoff_outcome outcome;
    IS(handoff_supervisor_perform_handoff(s, slow, &outcome, sizeof outcome), HANDOFF_OK);
    pthread_join(thread, NULL);
    IS(outcome.result, HANDOFF_OUTCOME_COMMITTED);
    CHECK(outcome.handoff_id && outcome.generation == 2 && outcome.pause_ns && outcome.total_ns > outcome.ready_ns);
    forked_in_a_callback(slow_open);
    IS(logs, 0);
    frees = 1;
    IS(handoff_supervisor_perform_handoff(s, busy_spawn, &o, sizeof o), HANDOFF_OK);
    IS(logs, 1); /* it is gone, with its log */
    s = NULL;
    CHECK(is_alive(o.pidfd));
    kill(o.pid, SIGKILL); /* a child of this process, which nobody has reaped */
    poll(&(struct pollfd){.fd = o.pidfd, .events = POLLIN}, 1, -1);
    close(first), close(outcome.pidfd), close(o.pidfd);
    handoff_config_free(busy_spawn);
    handoff_config_free(slow);
    handoff_config_free(slow_open);
}

int main(int argc, char **argv) {
    struct rlimit limit;
    if (argc != 3) return 2;
    dir = argv[1];
    store = argv[2];
    busy_spawn = spawn_of(store);
    refused_everywhere(NULL, busy_spawn, HANDOFF_EINVAL);
    IS(handoff_supervisor_cancel(NULL), HANDOFF_EINVAL);
    handoff_supervisor_free(NULL);
    handoff_config_free(busy_spawn);
    no_supervisor_without_sense();
    IS(handoff_supervisor_new(NULL, &s, NULL, 0), HANDOFF_OK);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == limit.rlim_max);
    spawns();
    listeners();
    too_much_for_the_kernel();
    handoff_supervisor_free(s);
    IS(handoff_supervisor_new(NULL, &s, NULL, 0), HANDOFF_OK);
    journals();
    handoff_supervisor_free(s);
    with_daemons();
    return failures != 0;
}
