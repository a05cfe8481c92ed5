/* faulty_kv.c - the key-value store of the examples, with one fault, for the tests of what a bad daemon does to a handoff.
 *
 * The store's own source stands as it is: the faults sit in the library calls, which are replaced below.
 * KV_FAULT names one:
 *
 *   exit-before-hello   exits with 7 before the library is called at all
 *   segv                the same, by SIGSEGV
 *   hang-before-hello   never calls the library
 *   slow-warm=MS        sleeps before it waits for begin
 *   crash-warm          dies of SIGSEGV instead of waiting for begin
 *   crash-committed     dies of SIGSEGV once it has committed, before it serves
 *   cut-committed       the same, but cuts its session with the supervisor two seconds before
 *   crash               exits with 7 after begin, with the lock held
 *   slow-open=MS        sleeps after begin, with the lock held
 *   hang-open           never comes back from it
 *   unhealthy           is ready, and says that it is not well
 *   old-revision        says that it opened one revision less than it did
 *   drain-fails         stops accepting, then answers the drain with a failure; the next drain is a good one
 *   drain-hangs         stops accepting, then answers nothing until the drain is cancelled or late; the same
 *   slow-drain=MS       drains, and sleeps before it answers; then there is a file "drained" in the data directory
 *   seal-fails          answers the seal with a failure; the next seal is a good one
 *   seal-progress=N     reports its progress N times before it answers the seal
 *   fork-open           leaves a child that never ends, with the lock held, and never comes back from begin
 *   changes-format      says that it will change the format on disk
 *   dies-serving=MS     dies of SIGSEGV this long after it began to serve
 *   dies-unseen         serves clients, of which the library knows nothing yet, makes a file "unseen" in the data directory, and
 *                       dies of SIGSEGV when somebody has removed it
 *   fork-serving        leaves a child that never ends once it serves
 *   lingers             does not exit when it is replaced, nor for a SIGTERM
 *   seal-writes=KIB     writes a file of this size at the seal, and fails if it can not
 *   open-writes=KIB     the same after begin, and exits if it can not
 *   open-waits          makes a file "opening" in the data directory after begin, and waits until somebody removes it
 *   no-threads          no thread can be made while there is a file "no-threads" in the data directory
 *
 * Also behind another one, as in slow-drain=2000,logs:
 *
 *   logs                writes the library's log to standard error
 *   gives-nothing       gives neither connections nor state: a seal does not wait for the successor
 *   heavy               has 512 MiB of memory, which the kernel takes back before its death can be seen
 *   storm               a signal interrupts the main thread every 200 us; its handler does not restart system calls
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char data_dir[4096] = ".";
static int session = -1;

static const char *fault(void) {
    const char *name = getenv("KV_FAULT");
    return name ? name : "";
}

static int is_fault(const char *name) { return strcmp(fault(), name) == 0; }

/* The first time only. */
static int is_fault_once(const char *name) {
    static int done;
    return is_fault(name) && !done++;
}

/* Sleeps for MS if the fault is "<name>MS". */
static void sleep_if(const char *name) {
    if (strncmp(fault(), name, strlen(name)) != 0) return;
    long ms = atol(fault() + strlen(name));
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* Writes a file of KIB if the fault is "<name>KIB", and removes it again.  The text says why that failed. */
static bool write_if(const char *name, char *why, size_t size) {
    static char block[1024];
    if (strncmp(fault(), name, strlen(name)) != 0) return true;
    char path[sizeof data_dir + 16];
    snprintf(path, sizeof path, "%s/snapshot", data_dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    bool ok = fd >= 0;
    for (long left = atol(fault() + strlen(name)); ok && left > 0; left--) ok = write(fd, block, sizeof block) > 0;
    snprintf(why, size, "cannot write %s: %s", path, strerror(errno));
    unlink(path);
    close(fd);
    return ok;
}

/* Stands before that of the C library, for the library, too. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    char path[sizeof data_dir + 16];
    snprintf(path, sizeof path, "%s/no-threads", data_dir);
    if (is_fault("no-threads") && access(path, F_OK) == 0) return EAGAIN;
    *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    /* A storm is for the thread that calls the library. */
    sigset_t storm, before;
    sigemptyset(&storm);
    sigaddset(&storm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &storm, &before);
    int result = create(thread, attributes, start, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

#define HEAVY_BYTES ((size_t)512 << 20)
void *memory;

static volatile sig_atomic_t interruptions;

static void on_alarm(int signal) { (void)signal; interruptions++; }

static void start_storm(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval often = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void print(void *user, int32_t level, const char *target, const char *text) {
    (void)user;
    fprintf(stderr, "log %d %s: %s\n", level, target, text);
}

static void hang(void) {
    for (;;) pause();
}

static void crash(void) {
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* A child that keeps everything that it inherited. */
static void leave_child(void) {
    if (fork() != 0) return;
    if (memory != NULL) memset(memory, 2, HEAVY_BYTES); /* its own copy, so that it is slow to die, too */
    hang();
}

static int faulty_detect_role(const handoff_config *c, handoff **h, char *err, size_t size) {
    session = getenv("HANDOFF_SOCK_FD") ? atoi(getenv("HANDOFF_SOCK_FD")) : -1;
    if (getenv("HANDOFF_DATA_DIR")) snprintf(data_dir, sizeof data_dir, "%s", getenv("HANDOFF_DATA_DIR"));
    if (is_fault("exit-before-hello")) _exit(7);
    if (is_fault("hang-before-hello")) hang();
    if (is_fault("segv")) crash();
    if (strstr(fault(), "storm")) start_storm();
    if (strstr(fault(), "heavy")) memset(memory = malloc(HEAVY_BYTES), 1, HEAVY_BYTES);
    if (strstr(fault(), "logs")) handoff_set_log((handoff_config *)c, print, NULL, NULL);
    return handoff_detect_role(c, h, err, size);
}

/* Makes this file in the data directory, and waits until somebody removes it. */
static void wait_for_removal(const char *name) {
    char path[sizeof data_dir + 16];
    snprintf(path, sizeof path, "%s/%s", data_dir, name);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    while (access(path, F_OK) == 0) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static int faulty_wait_for_begin(handoff *h, int timeout_ms) {
    sleep_if("slow-warm=");
    if (is_fault("crash-warm")) crash();
    int result = handoff_wait_for_begin(h, timeout_ms);
    if (is_fault("crash")) _exit(7);
    sleep_if("slow-open=");
    if (is_fault("open-waits")) wait_for_removal("opening");
    char why[sizeof data_dir + 64];
    if (!write_if("open-writes=", why, sizeof why)) {
        fprintf(stderr, "kv: %s\n", why);
        _exit(1);
    }
    if (is_fault("fork-open")) leave_child();
    if (is_fault("hang-open") || is_fault("fork-open")) hang();
    return result;
}

static int faulty_announce_ready(handoff *h, const handoff_readiness *r, int timeout_ms) {
    handoff_readiness changed = *r;
    uint64_t old = *r->revisions ? *r->revisions - 1 : 0;
    if (is_fault("old-revision")) changed.revisions = &old;
    if (is_fault("unhealthy")) {
        changed.flags |= HANDOFF_READY_UNHEALTHY;
        changed.detail = "told to be unhealthy";
    }
    if (is_fault("changes-format")) changed.flags |= HANDOFF_READY_FORMAT_CHANGES;
    int result = handoff_announce_ready(h, &changed, timeout_ms);
    if (is_fault("cut-committed") && shutdown(session, SHUT_RDWR) == 0) sleep(2);
    if (is_fault("crash-committed") || is_fault("cut-committed")) crash();
    if (strstr(fault(), "fork-serving")) leave_child();
    return result;
}

static int faulty_sealed(handoff *h, uint64_t id, const uint64_t *revisions, size_t count) {
    char why[sizeof data_dir + 64];
    if (!write_if("seal-writes=", why, sizeof why)) return handoff_failed(h, id, why);
    if (is_fault_once("seal-fails")) return handoff_failed(h, id, "told to fail the seal");
    if (strncmp(fault(), "seal-progress=", 14) == 0) {
        for (long i = 0, total = atol(fault() + 14); i < total; i++) handoff_progress(h, id, (uint64_t)i, (uint64_t)total);
    }
    return handoff_sealed(h, id, revisions, count);
}

static void *die_later(void *unused) {
    sleep_if("dies-serving=");
    crash();
    return unused;
}

static int faulty_serve(handoff *h) {
    pthread_t thread;
    if (strncmp(fault(), "dies-serving=", 13) == 0) pthread_create(&thread, NULL, die_later, NULL);
    if (is_fault("dies-unseen")) {
        wait_for_removal("unseen");
        crash();
    }
    int end = handoff_serve(h);
    if (end == HANDOFF_REPLACED && is_fault("lingers")) hang();
    return end;
}

static handoff_hook_fn store_drain;

static int faulty_done(handoff *h, uint64_t id) {
    int result;
    sleep_if("slow-drain=");
    result = handoff_done(h, id);
    if (interruptions) fprintf(stderr, "interrupted %ld times\n", (long)interruptions);
    if (strncmp(fault(), "slow-drain=", 11) == 0) {
        char path[sizeof data_dir + 16];
        snprintf(path, sizeof path, "%s/drained", data_dir);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    return result;
}

/* Of the store: it stops accepting, and waits until the clients are parked, without an event for a second at most. */
static bool stop_clients(handoff *h, const handoff_event *e);

static void faulty_drain(handoff *h, const handoff_event *e, void *user) {
    int fails = is_fault_once("drain-fails"), hangs = is_fault_once("drain-hangs");
    if (!e || (!fails && !hangs)) {
        store_drain(h, e, user);
        return;
    }
    stop_clients(h, NULL);
    if (fails) handoff_failed(h, e->id, "told to fail the drain");
    else poll(&(struct pollfd){.fd = e->cancel_fd, .events = POLLIN}, 1, -1);
}

static int faulty_put_connection(handoff *h, int fd, const char *name, const void *state, size_t size) {
    return strstr(fault(), "gives-nothing") ? HANDOFF_OK : handoff_put_connection(h, fd, name, state, size);
}

static int faulty_put_state(handoff *h, const char *key, const void *data, size_t size) {
    return strstr(fault(), "gives-nothing") ? HANDOFF_OK : handoff_put_state(h, key, data, size);
}

static int faulty_on_drain(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) {
    store_drain = fn;
    return handoff_on_drain(h, faulty_drain, user, destroy);
}

#define handoff_detect_role faulty_detect_role
#define handoff_wait_for_begin faulty_wait_for_begin
#define handoff_announce_ready faulty_announce_ready
#define handoff_sealed faulty_sealed
#define handoff_serve faulty_serve
#define handoff_done faulty_done
#define handoff_on_drain faulty_on_drain
#define handoff_put_connection faulty_put_connection
#define handoff_put_state faulty_put_state
#include "../../examples-c/kv.c"
