// kv.cpp - the store of examples-c/kv.c in C++17, with a thread for each client: the same protocol, the same log.
//
// The C header is used as it is; Handle below is all that it takes to own its handle.
//
// KV_FAULT names a fault, as in ffi-tests/c/faulty_kv.c: crash, unhealthy.
#include "store.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <handoff.h>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

constexpr int first_request_ms = 20;  // whoever has just connected is about to ask
constexpr int hang_up_ms = 1000;      // for a client that was told to hang up
constexpr int send_s = 5;             // for a client to read its reply
constexpr int margin_ms = 50;         // before the end of the grace: a late answer is none

// ---- the library

struct Free {
    void operator()(handoff *h) const { handoff_free(h); }
    void operator()(handoff_config *c) const { handoff_config_free(c); }
};
using Handle = std::unique_ptr<handoff, Free>;

// A code that is an error becomes an exception, with the library's own words.
int checked(const handoff *h, int code) {
    char why[512];
    if (code < 0) throw std::runtime_error(handoff_errmsg(h, why, sizeof why));
    return code;
}

Handle detect_role() {
    char why[512];
    handoff *raw = nullptr;
    std::unique_ptr<handoff_config, Free> config(handoff_config_new());
    handoff_config_set_str(config.get(), HANDOFF_OPT_BUILD_ID, BUILD);
    if (handoff_detect_role(config.get(), &raw, why, sizeof why) < 0) throw std::runtime_error(why);
    return Handle(raw);
}

// ---- clients, a thread for each

class Server {
public:
    Server(handoff *h, Store &store) : h_(h), store_(store) {}

    void start_accepting() {
        listener_ = Fd(handoff_take_listener(h_, "kv", 0));
        if (!listener_) throw std::runtime_error("no listener");
        acceptor_ = std::thread([this] { accept_clients(); });
    }

    bool accepting() const { return acceptor_.joinable(); }

    // Whoever knocks from here on waits in the backlog for the one that serves next. Waits until no client has a
    // thread, as long as left_ms says, or until cancel is readable.
    template <class Left>
    bool drain(int cancel, Left left_ms) {
        eventfd_t unused;
        draining_ = true;
        eventfd_write(drain_.get(), 1);
        if (acceptor_.joinable()) acceptor_.join();
        listener_ = Fd();
        while (threads_ > 0) {
            int left = left_ms();
            if (left <= 0) return false;
            auto [gone, cancelled] = wait_for({gone_.get(), cancel}, left);
            if (cancelled || !gone) return false;
            eventfd_read(gone_.get(), &unused);
        }
        return true;
    }

    // Nobody comes after us: clients are told to hang up.
    template <class Left>
    void stop(Left left_ms) {
        stopping_ = true;
        drain(-1, left_ms);
    }

    // Ours stay open, and untouched, until we know who serves.
    void move_clients() {
        checked(h_, handoff_put_state(h_, "lineage", store_.lineage.data(), store_.lineage.size()));
        for (const Client &c : parked_)
            checked(h_, handoff_put_connection(h_, c.socket.get(), "client", c.in.data(), c.in.size()));
    }

    // Those that were given are the successor's. Without a shutdown, which it would feel, too.
    void drop_clients() { parked_.clear(); }

    // As if nothing had been.
    void resume_clients() {
        std::vector<Client> parked;
        {
            eventfd_t unused;
            std::lock_guard<std::mutex> guard(mutex_);
            draining_ = false;
            eventfd_read(drain_.get(), &unused);
            parked.swap(parked_);
        }
        for (Client &c : parked) start(std::move(c));
    }

    // All that the incumbent had, with what it had read of them.
    void take_clients() {
        handoff_connection c;
        while (checked(h_, handoff_next_connection(h_, &c, sizeof c)) == 1)
            take(Fd(c.fd), std::string(static_cast<const char *>(c.state), c.state_size));
    }

private:
    struct Client {
        Fd socket;
        std::string in;  // what it sent and we have not looked at
        bool asked = false, told = false;
    };

    void accept_clients() {
        for (;;) {
            auto [knock, drain] = wait_for({listener_.get(), drain_.get()}, -1);
            if (drain) return;
            Fd socket(knock ? accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC) : -1);
            if (socket) take(std::move(socket), "");
        }
    }

    void take(Fd socket, std::string in) {
        int yes = 1;
        timeval patience{send_s, 0};
        fcntl(socket.get(), F_SETFL, fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);  // whoever had it before may poll
        setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        Client c;
        c.socket = std::move(socket);
        c.in = std::move(in);
        start(std::move(c));
    }

    void start(Client client) {
        threads_++;
        std::thread([this, c = std::move(client)]() mutable {
            serve(c);
            c.socket = Fd();
            if (--threads_ == 0) eventfd_write(gone_.get(), 1);
        }).detach();
    }

    // What the client sends from here on is for whoever serves next.
    bool park(Client &c) {
        std::lock_guard<std::mutex> guard(mutex_);
        if (!draining_ || stopping_) return false;
        parked_.push_back(std::move(c));
        return true;
    }

    static bool say(int fd, const std::string &text) {
        return send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
    }

    void serve(Client &c) {
        char part[line_bytes_max];
        int fd = c.socket.get();
        while (!c.told) {
            if (draining_ && park(c)) return;
            if (std::size_t end = c.in.find('\n'); std::min(end, c.in.size()) >= line_bytes_max) {
                say(fd, "ERR the line is too long\n");
                return;
            } else if (end != c.in.npos) {
                std::string reply = answer(c.in.substr(0, end), c.told);
                c.asked = true;
                c.in.erase(0, end + 1);
                if (!say(fd, reply)) return;
            } else if (request_comes(c)) {
                ssize_t got = recv(fd, part, sizeof part, 0);
                if (got <= 0) return;
                c.in.append(part, static_cast<std::size_t>(got));
            } else if (stopping_) {
                c.told = true;
                if (!say(fd, "CLOSE\n")) return;
            }
        }
        // A close with a request on the wire would be a reset: the client hangs up first.
        while (wait_for({fd}, hang_up_ms)[0] && recv(fd, part, sizeof part, 0) > 0) {}
    }

    std::string answer(const std::string &line, bool &told) {
        std::optional<std::string> reply;
        // The fence: a seal waits for those inside it, and keeps out those that come after it.
        if (handoff_write_begin(h_) == HANDOFF_OK) {
            reply = store_.execute(line);
            handoff_write_end(h_);
        }
        told = !reply || stopping_;
        return reply ? *reply + (told ? " CLOSE\n" : "\n") : "CLOSE\n";
    }

    // False: we drain. If nobody comes after us, one that has just connected is still heard: it is about to ask.
    bool request_comes(const Client &c) const {
        int fd = c.socket.get();
        bool knock = wait_for({fd, drain_.get()}, -1)[0];
        if (!stopping_) return !draining_;
        return knock || (!c.asked && wait_for({fd}, first_request_ms)[0]);
    }

    handoff *h_;
    Store &store_;
    Fd listener_;
    Fd drain_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};  // readable while we drain
    Fd gone_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};   // the last thread of a client has ended
    std::atomic<bool> draining_{false}, stopping_{false};
    std::atomic<int> threads_{0};
    std::thread acceptor_;
    std::mutex mutex_;
    std::vector<Client> parked_;  // clients without a thread: they are being moved
};

// ---- start, stop, handoff

struct Daemon {
    Store store;
    Server server;

    Daemon(const char *dir, handoff *h) : store(dir), server(h, store) {}

    // No exception may leave a hook: it becomes the event's failure.
    template <class Hook>
    static void answer(handoff *h, const handoff_event *e, Hook hook) noexcept {
        try {
            hook();
        } catch (const std::exception &error) {
            handoff_failed(h, e->id, error.what());
        }
    }

    static void drain(handoff *h, const handoff_event *e, void *self) {
        answer(h, e, [&] {
            Server &server = static_cast<Daemon *>(self)->server;
            auto left_ms = [&] { return handoff_remaining_ms(h, e->id) - margin_ms; };
            if (!server.drain(e->cancel_fd, left_ms)) throw std::runtime_error("a client does not read its reply");
            server.move_clients();
            handoff_done(h, e->id);
        });
    }

    static void seal(handoff *h, const handoff_event *e, void *self) {
        answer(h, e, [&] {
            std::uint64_t revision = static_cast<Daemon *>(self)->store.close();
            handoff_sealed(h, e->id, &revision, 1);
        });
    }

    static void resume(handoff *h, const handoff_event *e, void *self) {
        answer(h, e, [&] {
            auto *daemon = static_cast<Daemon *>(self);
            if (e->flags & HANDOFF_EVENT_AFTER_COMMIT) daemon->server.drop_clients();
            daemon->store.open();
            daemon->server.resume_clients();
            if (!daemon->server.accepting()) daemon->server.start_accepting();
            handoff_done(h, e->id);
        });
    }

    static void parked(handoff *, const handoff_event *, void *self) {
        static_cast<Daemon *>(self)->server.drop_clients();
    }
};

handoff *to_stop;

int run(const char *dir, const std::string &fault) {
    Handle h = detect_role();
    to_stop = h.get();
    std::signal(SIGTERM, [](int) { handoff_stop(to_stop); });
    // Outlives the clients' threads, which end with the process.
    auto &daemon = *new Daemon(dir, h.get());
    checked(h.get(), handoff_on_drain(h.get(), Daemon::drain, &daemon, nullptr));
    checked(h.get(), handoff_on_seal(h.get(), Daemon::seal, &daemon, nullptr));
    checked(h.get(), handoff_on_resume(h.get(), Daemon::resume, &daemon, nullptr));
    checked(h.get(), handoff_on_parked(h.get(), Daemon::parked, &daemon, nullptr));
    checked(h.get(), handoff_wait_for_begin(h.get(), -1));
    daemon.store.open();
    const void *before = nullptr;
    std::size_t size = 0;
    if (handoff_get_state(h.get(), "lineage", &before, &size) == HANDOFF_OK)
        daemon.store.lineage = std::string(static_cast<const char *>(before), size) + " " BUILD;
    if (fault == "crash") _exit(7);

    std::uint64_t revision = daemon.store.revision();
    handoff_readiness ready{};
    ready.size = sizeof ready;
    ready.revisions = &revision;
    ready.revision_count = 1;
    if (fault == "unhealthy") {
        ready.flags = HANDOFF_READY_UNHEALTHY;
        ready.detail = "told to be unhealthy";
    }
    checked(h.get(), handoff_announce_ready(h.get(), &ready, -1));
    daemon.server.take_clients();
    daemon.server.start_accepting();
    // Replaced: the data is not ours, nothing may be flushed into it.
    if (checked(h.get(), handoff_serve(h.get())) == HANDOFF_REPLACED) _exit(0);
    auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(hang_up_ms);
    daemon.server.stop([&] {
        return static_cast<int>((until - std::chrono::steady_clock::now()) / std::chrono::milliseconds(1));
    });
    daemon.store.close();
    std::_Exit(0);  // a client that did not hang up still has its thread
}

}  // namespace

int main() {
    const char *dir = std::getenv("HANDOFF_DATA_DIR"), *fault = std::getenv("KV_FAULT");
    if (!dir) return std::fputs("usage: HANDOFF_DATA_DIR=DATA_DIR kv\n", stderr), 2;
    try {
        // handoff_detect_role consumes the environment: a copy.
        return run(std::string(dir).c_str(), fault ? fault : "");
    } catch (const std::exception &error) {
        return std::fprintf(stderr, "kv: %s\n", error.what()), 1;
    }
}
