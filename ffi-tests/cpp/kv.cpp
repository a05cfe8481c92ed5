// kv.cpp - the key-value store of examples-c/kv.c in C++17, with a thread for each client: the same protocol, the same log.
//
// The C header is used as it is; Handle below is all that it takes to own its handle.
//
// KV_FAULT names a fault, as in ffi-tests/c/faulty_kv.c: crash, unhealthy.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <handoff.h>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#ifndef BUILD
#define BUILD "c++"
#endif

namespace {

constexpr std::size_t line_bytes_max = 4096;
constexpr int first_request_ms = 20;  // whoever has just connected is about to ask
constexpr int hang_up_ms = 1000;      // for a client that was told to hang up
constexpr int send_s = 5;             // for a client to read its reply
constexpr int margin_ms = 50;         // before the end of the grace: a late answer is none

std::system_error failed(const char *what) { return std::system_error(errno, std::generic_category(), what); }

// A descriptor, closed when its owner ends.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd &operator=(Fd &&other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) close(fd_);
    }
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_ = -1;
};

// poll() for input that goes on after a signal; which of them are readable.
template <std::size_t N>
std::array<bool, N> wait_for(const int (&fds)[N], int timeout_ms) {
    pollfd polled[N];
    std::array<bool, N> ready{};
    for (std::size_t i = 0; i < N; i++) polled[i] = {fds[i], POLLIN, 0};
    while (poll(polled, N, timeout_ms) < 0 && errno == EINTR) {}
    for (std::size_t i = 0; i < N; i++) ready[i] = polled[i].revents != 0;
    return ready;
}

// ---- the library

struct Free {
    void operator()(handoff *h) const { handoff_free(h); }
    void operator()(handoff_config *c) const { handoff_config_free(c); }
};
using Handle = std::unique_ptr<handoff, Free>;

// A code that is an error becomes an exception, with the library's own words.
int checked(const Handle &h, int code) {
    char why[512];
    if (code < 0) throw std::runtime_error(handoff_errmsg(h.get(), why, sizeof why));
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

// ---- the store

std::uint32_t fnv1a(std::string_view text) {
    std::uint32_t hash = 2166136261u;
    for (unsigned char byte : text) hash = (hash ^ byte) * 16777619u;
    return hash;
}

// A line of the log for each SET, "<checksum> <revision> <key> <value>".
class Store {
public:
    explicit Store(const char *dir) : dir_(open_dir(dir)) {}

    // Reads what is not known yet: at a start all, after a resume what a successor wrote before it died.
    void open() {
        std::lock_guard lock(mutex_);
        if (log_) return;  // the handoff was given up before the seal
        Fd log(openat(dir_.get(), "kv.log", O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
        if (!log) throw failed("kv.log");
        catch_up(log);
        // The last lines may be in memory only, if their writer was killed before its sync.
        if (fdatasync(log.get()) != 0 || (size_ == 0 && fsync(dir_.get()) != 0)) throw failed("cannot sync");
        durable_ = revision_;
        log_ = std::move(log);
    }

    // Everything is durable, and nothing is written from here on; the last revision.
    std::uint64_t close() {
        std::unique_lock lock(mutex_);
        synced_.wait(lock, [this] { return !syncing_; });
        if (broken_ || fdatasync(log_.get()) != 0) throw std::runtime_error("the log is broken");
        log_ = Fd();
        durable_ = revision_;
        return revision_;
    }

    std::uint64_t revision() {
        std::lock_guard lock(mutex_);
        return revision_;
    }

    // The reply; none if it was not executed, since the data is not ours any more.
    std::optional<std::string> execute(const std::string &line) {
        std::istringstream words(line);
        std::vector<std::string> word;
        for (std::string next; word.size() < 4 && words >> next;) word.push_back(next);
        std::unique_lock lock(mutex_);
        if (!log_) return std::nullopt;
        if (word.size() == 3 && word[0] == "SET") return set(lock, word[1], word[2]);
        if (word.size() == 2 && word[0] == "GET") {
            auto found = entries_.find(word[1]);
            return found == entries_.end() ? "NONE" : "VALUE " + found->second.value;
        }
        if (word.size() == 1 && word[0] == "COUNT")
            return "COUNT " + std::to_string(entries_.size()) + " " + std::to_string(durable_);
        if (word.size() == 1 && word[0] == "PING") return "PONG " + std::to_string(getpid()) + " " BUILD;
        return "ERR not a request";
    }

private:
    struct Entry {
        std::uint64_t revision;
        std::string value;
    };

    static Fd open_dir(const char *dir) {
        Fd fd(::open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fd) throw failed(dir);
        return fd;
    }

    // Writes, and waits until it is on disk. Whoever finds nobody in fdatasync syncs for all that wait.
    std::string set(std::unique_lock<std::mutex> &lock, const std::string &key, const std::string &value) {
        if (broken_) return "ERR the log is broken";
        std::uint64_t revision = revision_ + 1;
        std::string body = std::to_string(revision) + " " + key + " " + value;
        char sum[16];
        std::snprintf(sum, sizeof sum, "%08x ", fnv1a(body));
        std::string whole = sum + body + "\n";
        if (write(log_.get(), whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) {
            broken_ = ftruncate(log_.get(), size_) != 0;  // most likely a full disk: take back what is there of the line
            return "ERR not written";
        }
        revision_ = revision;
        size_ += static_cast<off_t>(whole.size());
        while (durable_ < revision && !broken_) {
            if (syncing_) {
                synced_.wait(lock);
                continue;
            }
            std::uint64_t written = revision_;
            syncing_ = true;
            lock.unlock();
            bool ok = fdatasync(log_.get()) == 0;
            lock.lock();
            syncing_ = false;
            broken_ |= !ok;
            durable_ = ok ? written : durable_;
            synced_.notify_all();
        }
        if (durable_ < revision) return "ERR the log is broken";
        put(key, value, revision);
        return "OK " + std::to_string(revision);
    }

    // Requests that were synced together come here in any order: the highest revision wins.
    void put(const std::string &key, const std::string &value, std::uint64_t revision) {
        Entry &entry = entries_[key];
        if (revision > entry.revision) entry = {revision, value};
    }

    void catch_up(const Fd &log) {
        std::string text;
        char part[1 << 16];
        for (off_t at = size_;; at = size_ + static_cast<off_t>(text.size())) {
            ssize_t got = pread(log.get(), part, sizeof part, at);
            if (got < 0) throw failed("kv.log");
            if (got == 0) break;
            text.append(part, static_cast<std::size_t>(got));
            std::size_t begin = 0;
            for (std::size_t end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
                replay(std::string_view(text).substr(begin, end - begin));
                size_ += static_cast<off_t>(end + 1 - begin);
            }
            text.erase(0, begin);
        }
        // A torn last line was never acknowledged: cut it off.
        if (!text.empty() && ftruncate(log.get(), size_) != 0) throw failed("kv.log");
    }

    void replay(std::string_view line) {
        std::uint32_t sum = 0;
        std::uint64_t revision = 0;
        std::string_view body = line.substr(std::min<std::size_t>(9, line.size()));
        std::from_chars(line.data(), line.data() + std::min<std::size_t>(8, line.size()), sum, 16);
        std::from_chars(body.data(), body.data() + body.size(), revision);
        std::size_t key = body.find(' '), value = body.rfind(' ');
        if (key == body.npos || value <= key || sum != fnv1a(body) || revision != revision_ + 1)
            throw std::runtime_error("kv.log is damaged at byte " + std::to_string(size_));
        put(std::string(body.substr(key + 1, value - key - 1)), std::string(body.substr(value + 1)), revision);
        revision_ = revision;
    }

    Fd dir_, log_;  // the log is closed while it is not ours to write
    std::mutex mutex_;
    std::condition_variable synced_;
    off_t size_ = 0;              // of the log, as far as we know it
    std::uint64_t revision_ = 0;  // of its last line
    std::uint64_t durable_ = 0;   // of its last line that is on disk
    bool syncing_ = false;        // one thread is in fdatasync, for all that wait
    bool broken_ = false;         // a write or a sync failed: nobody knows what is on disk
    std::unordered_map<std::string, Entry> entries_;
};

// ---- clients, a thread for each

class Server {
public:
    Server(handoff *h, Store &store) : h_(h), store_(store) {}

    void start_accepting() {
        eventfd_t unused;
        draining_ = false;
        eventfd_read(drain_.get(), &unused);
        listener_ = Fd(handoff_take_listener(h_, "kv", 0));
        if (!listener_) throw std::runtime_error("no listener");
        acceptor_ = std::thread([this] { accept_clients(); });
    }

    bool accepting() const { return acceptor_.joinable(); }

    // Whoever knocks from here on waits in the backlog for the one that serves next. Waits for the clients to hang up, as
    // long as left_ms says, or until cancel is readable.
    template <class Left>
    void drain(int cancel, Left left_ms) {
        eventfd_t unused;
        draining_ = true;
        eventfd_write(drain_.get(), 1);
        if (acceptor_.joinable()) acceptor_.join();
        listener_ = Fd();
        while (clients_ > 0) {
            int left = left_ms();
            if (left <= 0) return;
            auto [gone, cancelled] = wait_for({gone_.get(), cancel}, left);
            if (cancelled || !gone) return;
            eventfd_read(gone_.get(), &unused);
        }
    }

private:
    void accept_clients() {
        for (;;) {
            auto [knock, drain] = wait_for({listener_.get(), drain_.get()}, -1);
            if (drain) return;
            Fd socket(knock ? accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC) : -1);
            if (!socket) continue;
            int yes = 1;
            timeval patience{send_s, 0};
            setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
            clients_++;
            std::thread([this, socket = std::move(socket)]() mutable {
                serve(socket.get());
                socket = Fd();
                if (--clients_ == 0) eventfd_write(gone_.get(), 1);
            }).detach();
        }
    }

    static bool say(int fd, const std::string &text) {
        return send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
    }

    void serve(int fd) {
        std::string in;
        char part[line_bytes_max];
        bool asked = false, told = false;
        while (!told) {
            if (std::size_t end = in.find('\n'); end != in.npos) {
                std::string reply = answer(in.substr(0, end), told);
                asked = true;
                in.erase(0, end + 1);
                if (!say(fd, reply)) return;
            } else if (in.size() >= line_bytes_max) {
                say(fd, "ERR the line is too long\n");
                return;
            } else if (request_comes(fd, asked)) {
                ssize_t got = recv(fd, part, sizeof part, 0);
                if (got <= 0) return;
                in.append(part, static_cast<std::size_t>(got));
            } else {
                told = true;
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
        told = !reply || draining_;
        return reply ? *reply + (told ? " CLOSE\n" : "\n") : "CLOSE\n";
    }

    // False: the drain has begun, and this client has nothing to ask. One that has just connected is about to.
    bool request_comes(int fd, bool asked) const {
        return wait_for({fd, drain_.get()}, -1)[0] || (!asked && wait_for({fd}, first_request_ms)[0]);
    }

    handoff *h_;
    Store &store_;
    Fd listener_;
    Fd drain_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};  // readable while we drain
    Fd gone_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};   // the last client has gone
    std::atomic<bool> draining_{false};
    std::atomic<int> clients_{0};
    std::thread acceptor_;
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
            static_cast<Daemon *>(self)->server.drain(e->cancel_fd,
                                                      [&] { return handoff_remaining_ms(h, e->id) - margin_ms; });
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
            daemon->store.open();
            if (!daemon->server.accepting()) daemon->server.start_accepting();
            handoff_done(h, e->id);
        });
    }
};

handoff *to_stop;

int run(const char *dir, const std::string &fault) {
    Handle h = detect_role();
    to_stop = h.get();
    std::signal(SIGTERM, [](int) { handoff_stop(to_stop); });
    // Outlives the clients' threads, which end with the process.
    auto &daemon = *new Daemon(dir, h.get());
    checked(h, handoff_on_drain(h.get(), Daemon::drain, &daemon, nullptr));
    checked(h, handoff_on_seal(h.get(), Daemon::seal, &daemon, nullptr));
    checked(h, handoff_on_resume(h.get(), Daemon::resume, &daemon, nullptr));
    checked(h, handoff_wait_for_begin(h.get(), -1));
    daemon.store.open();
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
    checked(h, handoff_announce_ready(h.get(), &ready, -1));
    daemon.server.start_accepting();
    if (checked(h, handoff_serve(h.get())) == HANDOFF_REPLACED) _exit(0);  // the data is not ours, nothing may be flushed into it
    auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(hang_up_ms);
    daemon.server.drain(-1, [&] {
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
