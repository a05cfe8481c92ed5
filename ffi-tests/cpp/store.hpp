// The store of kv.cpp: its log, and what both files need of the system.
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstdio>
#include <fcntl.h>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#ifndef BUILD
#define BUILD "c++"
#endif

namespace {

constexpr std::size_t line_bytes_max = 4096;

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

// ---- the store

std::uint32_t fnv1a(std::string_view text) {
    std::uint32_t hash = 2166136261u;
    for (unsigned char byte : text) hash = (hash ^ byte) * 16777619u;
    return hash;
}

// A line of the log for each SET, "<checksum> <revision> <key> <value>".
class Store {
public:
    std::string lineage = BUILD;  // state that is in no file: each successor gets it, and adds itself

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
        if (word.size() == 1 && word[0] == "LINEAGE") return "LINEAGE " + lineage;
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
            broken_ = ftruncate(log_.get(), size_) != 0;  // a full disk: take back what is there of the line
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

}  // namespace
