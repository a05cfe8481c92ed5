package handoff

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a test waits for must come; this is how long until it fails.
const patience = 60 * time.Second

func open(t *testing.T, options ...Option) *Handoff {
	t.Helper()
	h, err := Open(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// serving is a handle that serves, as after a cold start.
func serving(t *testing.T, options ...Option) *Handoff {
	t.Helper()
	h := open(t, append([]Option{DataDir(t.TempDir())}, options...)...)
	if err := h.WaitForBegin(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(context.Background(), Readiness{Revisions: []uint64{1, 2}, Detail: "well"}); err != nil {
		t.Fatal(err)
	}
	return h
}

func expect(t *testing.T, err error, code Code) *Error {
	t.Helper()
	var e *Error
	if !errors.Is(err, code) || !errors.As(err, &e) || e.Code != code {
		t.Fatalf("%v instead of %v", err, code)
	}
	return e
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("in vain: " + what)
	}
}

func TestColdStartServesUntilItIsStopped(t *testing.T) {
	h := open(t, DataDir(t.TempDir()), BuildID("1"))
	if h.IsSuccessor() || h.Phase() != PhaseStarting {
		t.Fatal(h.IsSuccessor(), h.Phase())
	}
	expect(t, h.WriteBegin(), ErrSealed)
	if err := errors.Join(h.Warmed(), h.WaitForBegin(context.Background())); err != nil {
		t.Fatal(err)
	}
	if h.Phase() != PhaseBegun {
		t.Fatal(h.Phase())
	}
	_, err := h.Serve(context.Background())
	expect(t, err, ErrState)
	if err := h.Ready(context.Background(), Readiness{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.WriteBegin(), h.WriteEnd()); err != nil || h.Phase() != PhaseServing {
		t.Fatal(err, h.Phase())
	}
	expect(t, h.WriteEnd(), ErrState)
	h.Stop()
	end, err := h.Serve(context.Background())
	if end != Stopped || err != nil {
		t.Fatal(end, err)
	}
	await(t, "done", h.Done())
}

func TestContextStopsServe(t *testing.T) {
	h := serving(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if end, err := h.Serve(ctx); end != Stopped || err != nil {
			t.Error(end, err)
		}
	}()
	for !h.owned.Load() {
		time.Sleep(time.Millisecond)
	}
	expect(t, h.Warmed(), ErrBusy)
	expect(t, h.OnDrain(nil), ErrBusy)
	select {
	case <-h.Done():
		t.Fatal("done too early")
	default:
	}
	cancel()
	await(t, "the end of Serve", served)
	await(t, "done", h.Done())
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	first := open(t, DataDir(dir))
	if err := first.WaitForBegin(context.Background()); err != nil {
		t.Fatal(err)
	}
	second := open(t, DataDir(dir))
	why := errors.New("no patience")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 100*time.Millisecond, why)
	defer cancel()
	if err := second.WaitForBegin(ctx); err != why {
		t.Fatal(err)
	}
	// It may be called again.
	e := expect(t, second.WaitForBegin(context.Background()), ErrLocked)
	if !strings.Contains(e.Detail, "locked by") || strings.Count(e.Error(), e.Func) != 1 {
		t.Fatal(e)
	}
	first.Close()
	third := open(t, DataDir(dir))
	if err := third.WaitForBegin(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestCloseWakesWhoWaitsAndEndsAll(t *testing.T) {
	h := serving(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_, err := h.Serve(context.Background())
		expect(t, err, ErrState)
	}()
	for !h.owned.Load() {
		time.Sleep(time.Millisecond)
	}
	// Others are in the middle of a call.
	var busy sync.WaitGroup
	for i := 0; i < 4; i++ {
		busy.Add(1)
		go func() {
			defer busy.Done()
			for h.Phase() != PhaseReplaced {
				if h.WriteBegin() == nil {
					_ = h.WriteEnd() // closed in between
				}
				_, _ = h.Listener("x")
			}
		}()
	}
	for i := 0; i < 2; i++ {
		h.Close()
	}
	busy.Wait()
	await(t, "the end of Serve", served)
	await(t, "done", h.Done())
	expect(t, h.WriteBegin(), ErrState)
	expect(t, h.Warmed(), ErrState)
	expect(t, h.WaitForBegin(context.Background()), ErrState)
	_, err := h.Listener("x")
	expect(t, err, ErrState)
	h.Stop()
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		option Option
		code   Code
	}{
		{DataDir(""), ErrInvalid},
		{DataDir("a\x00b"), ErrInvalid},
		{BuildID(strings.Repeat("x", 257)), ErrTooBig},
	} {
		_, err := Open(c.option)
		expect(t, err, c.code)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Open(DataDir(missing)); err == nil || !strings.Contains(err.Error(), missing) {
		t.Error(err)
	}
	h := serving(t, ControlPath(filepath.Join(t.TempDir(), "control")), NetworkDataDir(), RequireTransfer())
	expect(t, h.Ready(context.Background(), Readiness{Detail: "a\x00b"}), ErrInvalid)
}

func TestCodesSayWhatTheyMean(t *testing.T) {
	seen := make(map[string]Code)
	for code := ErrNoName; code <= ErrInvalid; code++ {
		if other, twice := seen[code.Error()]; twice || code.Error() == "" {
			t.Errorf("%d and %d say %q", code, other, code.Error())
		}
		seen[code.Error()] = code
	}
	if Phase(99).String() != "unknown" || PhaseSealed.String() != "sealed" || Stopped.String() != "stopped" {
		t.Error(Phase(99), PhaseSealed, Stopped)
	}
}

func TestProgressWantsTheContextOfAHook(t *testing.T) {
	expect(t, Progress(context.Background(), 1, 2), ErrInvalid)
	h := serving(t)
	ctx := context.WithValue(context.Background(), eventKey{}, openEvent{h, 77, false})
	expect(t, Progress(ctx, 1, 2), ErrStale)
}

// A logger that calls the library, and panics once.
type logger struct {
	slog.Handler
	h     *Handoff
	lines []string
	panic bool
}

func (l *logger) Enabled(context.Context, slog.Level) bool { return true }

func (l *logger) Handle(_ context.Context, r slog.Record) error {
	l.lines = append(l.lines, r.Level.String()+" "+r.Message)
	if l.h != nil {
		l.h.Phase()
		_, _ = l.h.Listener("x")
	}
	if l.panic {
		panic("told to")
	}
	return nil
}

func TestLoggerRunsOutsideOfC(t *testing.T) {
	l := &logger{}
	h := serving(t, Logger(slog.New(l)))
	l.h = h
	l.panic = true
	h.sink.push(line{slog.LevelInfo, "test", "first"})
	func() {
		defer func() {
			if recover() != "told to" {
				t.Error("no panic")
			}
		}()
		_, _ = h.Listener("x")
	}()
	l.panic = false
	h.sink.push(line{slog.LevelInfo, "test", "second"})
	_, _ = h.Listener("x")
	last := l.lines[len(l.lines)-2:]
	if last[0] != "INFO first" || last[1] != "INFO second" {
		t.Error(l.lines)
	}
	h.Stop()
	if _, err := h.Serve(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestWatchLeavesNothingBehind(t *testing.T) {
	goroutines, before := runtime.NumGoroutine(), openDescriptors(t)
	for i := 0; i < 1000; i++ {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fd := duplicateOf(t, r)
		ctx, cancel := context.WithCancelCause(context.Background())
		stop, err := watch(fd, cancel)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			w.Close()
			await(t, "cancelled", ctx.Done())
			if context.Cause(ctx) != ErrStale {
				t.Fatal(context.Cause(ctx))
			}
		}
		stop()
		if i%2 == 1 && ctx.Err() != nil {
			t.Fatal("cancelled for nothing")
		}
		cancel(nil)
		syscall.Close(fd)
		r.Close()
		w.Close()
	}
	if now := runtime.NumGoroutine(); now > goroutines+5 { // the last ones may be about to end
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
	if now := openDescriptors(t); now > before+5 { // the runtime has some of its own
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestChildrenDoNotInheritTheEnvironment(t *testing.T) {
	t.Setenv("HANDOFF_DATA_DIR", t.TempDir())
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "2")
	h := open(t)
	if err := h.WaitForBegin(context.Background()); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("env").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range strings.Split(string(output), "\n") {
		if strings.HasPrefix(variable, "HANDOFF_") || strings.HasPrefix(variable, "LISTEN_") {
			t.Error(variable)
		}
	}
}
