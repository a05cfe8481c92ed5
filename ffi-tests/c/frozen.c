/* frozen.c - what each function was when it was accepted: a changed signature does not compile. Only compiled, in C and
 * in C++; the layouts are in layout.c. */
#include <handoff.h>

const char *(*version_as_accepted)(void) = handoff_version;
uint32_t (*abi_as_accepted)(void) = handoff_abi;
const char *(*strerror_as_accepted)(int code) = handoff_strerror;
const char *(*errmsg_as_accepted)(const handoff *h, char *buf, size_t size) = handoff_errmsg;
void (*free_as_accepted)(handoff *h) = handoff_free;
handoff_config *(*config_new_as_accepted)(void) = handoff_config_new;
int (*config_set_str_as_accepted)(handoff_config *c, int32_t option, const char *value) = handoff_config_set_str;
int (*config_set_int_as_accepted)(handoff_config *c, int32_t option, int64_t value) = handoff_config_set_int;
int (*set_log_as_accepted)(handoff_config *c, handoff_log_fn fn, void *user, handoff_destroy_fn destroy) = handoff_set_log;
void (*config_free_as_accepted)(handoff_config *c) = handoff_config_free;
int (*detect_role_as_accepted)(const handoff_config *c, handoff **h, char *err, size_t err_size) = handoff_detect_role;
int (*take_listener_as_accepted)(handoff *h, const char *name, uint32_t index) = handoff_take_listener;
const char *(*listener_name_as_accepted)(const handoff *h, uint32_t index) = handoff_listener_name;
int (*warmed_as_accepted)(handoff *h) = handoff_warmed;
int (*wait_for_begin_as_accepted)(handoff *h, int timeout_ms) = handoff_wait_for_begin;
int (*announce_ready_as_accepted)(handoff *h, const handoff_readiness *r, int timeout_ms) = handoff_announce_ready;
int (*on_drain_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_drain;
int (*on_seal_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_seal;
int (*on_resume_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_resume;
int (*on_parked_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_parked;
int (*on_confirmed_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_confirmed;
int (*on_connections_as_accepted)(handoff *h, handoff_hook_fn fn, void *user, handoff_destroy_fn destroy) = handoff_on_connections;
int (*serve_as_accepted)(handoff *h) = handoff_serve;
int (*pollfd_as_accepted)(const handoff *h) = handoff_pollfd;
int (*dispatch_as_accepted)(handoff *h, handoff_event *event, size_t size) = handoff_dispatch;
int (*stop_as_accepted)(handoff *h) = handoff_stop;
int (*done_as_accepted)(handoff *h, uint64_t event_id) = handoff_done;
int (*sealed_as_accepted)(handoff *h, uint64_t event_id, const uint64_t *revisions, size_t count) = handoff_sealed;
int (*failed_as_accepted)(handoff *h, uint64_t event_id, const char *why) = handoff_failed;
int (*progress_as_accepted)(handoff *h, uint64_t event_id, uint64_t done, uint64_t total) = handoff_progress;
int (*phase_as_accepted)(const handoff *h) = handoff_phase;
int (*remaining_ms_as_accepted)(const handoff *h, uint64_t event_id) = handoff_remaining_ms;
int (*write_begin_as_accepted)(handoff *h) = handoff_write_begin;
int (*write_end_as_accepted)(handoff *h) = handoff_write_end;
int (*put_state_as_accepted)(handoff *h, const char *key, const void *data, size_t size) = handoff_put_state;
int (*put_state_fd_as_accepted)(handoff *h, const char *key, int fd) = handoff_put_state_fd;
int (*get_state_as_accepted)(handoff *h, const char *key, const void **data, size_t *size) = handoff_get_state;
int (*take_state_fd_as_accepted)(handoff *h, const char *key) = handoff_take_state_fd;
int (*put_connection_as_accepted)(handoff *h, int fd, const char *name, const void *state, size_t size) = handoff_put_connection;
int (*next_connection_as_accepted)(handoff *h, handoff_connection *c, size_t size) = handoff_next_connection;
int (*supervisor_new_as_accepted)(const handoff_config *c, handoff_supervisor **s, char *err, size_t err_size) = handoff_supervisor_new;
int (*supervisor_add_listener_as_accepted)(handoff_supervisor *s, const char *name, int fd) = handoff_supervisor_add_listener;
int (*supervisor_set_journal_as_accepted)(handoff_supervisor *s, const char *path) = handoff_supervisor_set_journal;
int (*supervisor_perform_handoff_as_accepted)(handoff_supervisor *s, const handoff_config *spawn, handoff_outcome *o, size_t size) = handoff_supervisor_perform_handoff;
int (*supervisor_resume_from_journal_as_accepted)(handoff_supervisor *s, const handoff_config *spawn, handoff_outcome *o, size_t size) = handoff_supervisor_resume_from_journal;
int (*supervisor_cancel_as_accepted)(handoff_supervisor *s) = handoff_supervisor_cancel;
const char *(*supervisor_errmsg_as_accepted)(const handoff_supervisor *s) = handoff_supervisor_errmsg;
void (*supervisor_free_as_accepted)(handoff_supervisor *s) = handoff_supervisor_free;

static void a_hook(handoff *h, const handoff_event *event, void *user) {
    (void)h;
    (void)event;
    (void)user;
}
handoff_hook_fn hook_as_accepted = a_hook;

static void a_log(void *user, int32_t level, const char *target, const char *text) {
    (void)user;
    (void)level;
    (void)target;
    (void)text;
}
handoff_log_fn log_as_accepted = a_log;

static void a_destroy(void *user) {
    (void)user;
}
handoff_destroy_fn destroy_as_accepted = a_destroy;
