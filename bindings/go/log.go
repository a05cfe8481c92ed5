package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"log/slog"
	"runtime/cgo"
	"sync"
)

const levelTrace = slog.LevelDebug - 4

type line struct {
	level        slog.Level
	target, text string
}

// A sink keeps the library's lines until the call that brought them has left C. The logger may then do what it likes: be
// slow, panic, call this package.
type sink struct {
	logger *slog.Logger
	handle cgo.Handle

	mu    sync.Mutex
	lines []line
	// One goroutine writes at a time, so that lines keep their order.
	writing bool
}

func newSink(logger *slog.Logger) *sink {
	s := &sink{logger: logger}
	s.handle = cgo.NewHandle(s)
	return s
}

func (s *sink) push(l line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
}

// write gives what is there to the logger, unless another goroutine is at it, which then sees the new lines, too.
func (s *sink) write() {
	if s == nil {
		return
	}
	for first := true; ; first = false {
		l, ok := s.take(first)
		if !ok {
			return
		}
		s.writeOne(l)
	}
}

func (s *sink) take(first bool) (line, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first && s.writing {
		return line{}, false
	}
	s.writing = len(s.lines) > 0
	if !s.writing {
		s.lines = nil
		return line{}, false
	}
	l := s.lines[0]
	s.lines = s.lines[1:]
	return l, true
}

func (s *sink) writeOne(l line) {
	returned := false
	defer func() {
		if !returned { // the logger panicked: others may write
			s.mu.Lock()
			s.writing = false
			s.mu.Unlock()
		}
	}()
	s.logger.Log(context.Background(), l.level, l.text, "target", l.target)
	returned = true
}

func level(c C.int32_t) slog.Level {
	switch c {
	case C.HANDOFF_LOG_ERROR:
		return slog.LevelError
	case C.HANDOFF_LOG_WARN:
		return slog.LevelWarn
	case C.HANDOFF_LOG_INFO:
		return slog.LevelInfo
	case C.HANDOFF_LOG_DEBUG:
		return slog.LevelDebug
	default:
		return levelTrace
	}
}

//export goHandoffLog
func goHandoffLog(user C.uintptr_t, l C.int32_t, target, text *C.char) {
	if s, ok := cgo.Handle(user).Value().(*sink); ok {
		s.push(line{level(l), C.GoString(target), C.GoString(text)})
	}
}

//export goHandoffRelease
func goHandoffRelease(user C.uintptr_t) { cgo.Handle(user).Delete() }
