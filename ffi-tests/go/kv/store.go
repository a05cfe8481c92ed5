package main

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

type entry struct {
	revision uint64
	value    string
}

const lineageBytesMax = 1000 // the last of it

// The store keeps all values in memory and a log on disk: a line for each SET, "<checksum> <revision> <key> <value>".
type store struct {
	dir string

	mu       sync.Mutex
	synced   sync.Cond // on mu
	log      *os.File  // nil while it is not ours to write
	size     int64     // of the log, as far as we know it
	revision uint64    // of its last line
	durable  uint64    // of its last line that is on disk
	syncing  bool      // one goroutine is in fdatasync, for all that wait
	broken   error     // a write or a sync failed: nobody knows what is on disk, so nothing more is accepted
	table    map[string]entry
	lineage  string // the builds that served before, and this one: state that is in no file
}

func newStore(dir string) *store {
	s := &store{dir: dir, table: make(map[string]entry), lineage: build}
	s.synced.L = &s.mu
	return s
}

func checksum(body string) uint32 {
	hash := fnv.New32a()
	io.WriteString(hash, body)
	return hash.Sum32()
}

// put takes requests that were synced together in any order: the highest revision wins.
func (s *store) put(key string, e entry) {
	if s.table[key].revision < e.revision {
		s.table[key] = e
	}
}

// replay returns false if the line is damaged, or not the next one.
func (s *store) replay(line string) bool {
	sum, body, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	words := strings.Split(body, " ")
	if len(words) != 3 || sum != fmt.Sprintf("%08x", checksum(body)) || words[0] != strconv.FormatUint(s.revision+1, 10) {
		return false
	}
	s.revision++
	s.size += int64(len(line))
	s.put(words[1], entry{s.revision, words[2]})
	return true
}

// catchUp reads what we do not know yet: at a start all, after a resume what a successor wrote before it died.
func (s *store) catchUp(log *os.File) error {
	in := bufio.NewReader(io.NewSectionReader(log, s.size, 1<<62))
	for {
		line, err := in.ReadString('\n')
		switch {
		case err == io.EOF && line != "":
			return log.Truncate(s.size) // a torn last line was never acknowledged
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case !s.replay(line):
			return fmt.Errorf("kv.log is damaged at byte %d", s.size)
		}
	}
}

func (s *store) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != nil { // the handoff was given up before the seal
		return nil
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "kv.log"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	// The last lines may be in memory only, if their writer was killed before its sync.
	if err = s.catchUp(log); err == nil {
		err = syscall.Fdatasync(int(log.Fd()))
	}
	if err == nil && s.size == 0 {
		err = syncDirectory(s.dir)
	}
	if err != nil {
		log.Close()
		return err
	}
	s.log, s.durable = log, s.revision
	return nil
}

func (s *store) inherit(lineage []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lineage = string(lineage[max(0, len(lineage)-lineageBytesMax):]) + " " + build
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// close makes everything durable; the last revision.
func (s *store) close() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.syncing {
		s.synced.Wait()
	}
	if s.broken == nil {
		s.broken = errors.Join(syscall.Fdatasync(int(s.log.Fd())), s.log.Close())
	}
	if s.broken == nil {
		s.log, s.durable = nil, s.revision
	}
	s.synced.Broadcast()
	return s.revision, s.broken
}

// set writes, and waits until it is on disk. Whoever finds nobody in fdatasync syncs for all that wait.
func (s *store) set(key, value string) (uint64, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	revision := s.revision + 1
	body := fmt.Sprintf("%d %s %s", revision, key, value)
	line := fmt.Sprintf("%08x %s\n", checksum(body), body)
	if _, err := s.log.WriteString(line); err != nil { // most likely a full disk: take back what is there of the line, and go on
		s.broken = s.log.Truncate(s.size)
		return 0, err
	}
	s.revision = revision
	s.size += int64(len(line))
	for s.durable < revision && s.broken == nil {
		if s.syncing {
			s.synced.Wait()
		} else {
			s.sync()
		}
	}
	if s.durable < revision {
		return 0, s.broken
	}
	s.put(key, entry{revision, value})
	return revision, nil
}

func (s *store) sync() {
	upTo, fd := s.revision, int(s.log.Fd())
	s.syncing = true
	s.mu.Unlock()
	err := syscall.Fdatasync(fd)
	s.mu.Lock()
	s.syncing = false
	if err != nil {
		s.broken = err
	} else {
		s.durable = upTo
	}
	s.synced.Broadcast()
}

// execute gives the reply; false: not executed, since the data is not ours any more.
func (s *store) execute(line string) (string, bool) {
	words := strings.Fields(line)
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := s.log != nil
	switch {
	case ours && len(words) == 3 && words[0] == "SET":
		revision, err := s.set(words[1], words[2])
		if err != nil {
			return "ERR not written: " + err.Error(), true
		}
		return fmt.Sprintf("OK %d", revision), true
	case ours && len(words) == 2 && words[0] == "GET":
		if e, found := s.table[words[1]]; found {
			return "VALUE " + e.value, true
		}
		return "NONE", true
	case len(words) == 1 && words[0] == "COUNT":
		return fmt.Sprintf("COUNT %d %d", len(s.table), s.durable), ours
	case len(words) == 1 && words[0] == "PING":
		return fmt.Sprintf("PONG %d %s", os.Getpid(), build), ours
	case len(words) == 1 && words[0] == "LINEAGE":
		return "LINEAGE " + s.lineage, ours
	default:
		return "ERR not a request", ours
	}
}
