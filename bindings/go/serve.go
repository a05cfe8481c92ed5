package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
	"unsafe"

	"handoff/internal/lost"
)

// An End is how Serve ended.
type End int

const (
	// Replaced: the data belongs to the successor. End with os.Exit(0), which runs no deferred function; write nothing.
	Replaced End = C.HANDOFF_REPLACED
	// Stopped: shut down as you always did.
	Stopped End = C.HANDOFF_STOPPED
)

func (e End) String() string {
	switch e {
	case Replaced:
		return "replaced"
	case Stopped:
		return "stopped"
	default:
		return "none"
	}
}

type hooks struct {
	drain  func(context.Context) error
	seal   func(context.Context) ([]uint64, error)
	resume func(context.Context) error

	confirmed, parked func()
}

// OnDrain registers what drains: stop accepting, finish what is under way, make acknowledged writes durable. An error undoes
// the handoff.
//
// Hooks run one at a time, on the goroutine that called Serve. Their context ends when the event is cancelled, with
// [ErrStale] as its cause, or late. An answer that comes later than the context's deadline is none: a drain that would rather
// end with some clients unserved than be undone returns nil some time before it. Serve's context does not cancel a hook, but its
// values are there. A handoff without a hook for one of its events is undone.
func (h *Handoff) OnDrain(hook func(context.Context) error) error {
	return h.register("handoff_on_drain", func() { h.hooks.drain = hook })
}

// OnSeal registers what seals: flush and close the writers. It returns the last revision of each shard, or none. When it has
// returned, the library waits for everybody between WriteBegin and WriteEnd and releases the lock.
func (h *Handoff) OnSeal(hook func(context.Context) ([]uint64, error)) error {
	return h.register("handoff_on_seal", func() { h.hooks.seal = hook })
}

// OnResume registers what resumes, when the handoff was undone: the lock is yours again, or still. Reopen, take the listeners
// again, accept. What the drain or the seal would have closed may be open, since either may have been given up. When [AfterCommit] says
// so, close the connections that were given to the successor.
func (h *Handoff) OnResume(hook func(context.Context) error) error {
	return h.register("handoff_on_resume", func() { h.hooks.resume = hook })
}

func (h *Handoff) register(function string, set func()) error {
	if err := h.own(function); err != nil {
		return err
	}
	defer h.disown()
	set()
	return nil
}

// Serve runs the hooks when they are wanted, until the end, and needs no thread while there is nothing to do. Accept on
// other goroutines.
//
// When ctx is done, it does what Stop does, and goes on until it is known who owns the data: so a context of
// [os/signal.NotifyContext] is right.
//
// Errors: [ErrResume] and [ErrAborted]: exit, the data is not yours. [ErrState]: Ready has not returned nil, or the handle was closed.
func (h *Handoff) Serve(ctx context.Context) (End, error) {
	const function = "handoff_dispatch"
	if err := h.own(function); err != nil {
		return 0, err
	}
	defer h.disown()
	if !h.ready.Load() {
		return 0, &Error{ErrState, function, "serving needs Ready first"}
	}
	defer h.end()
	stop := context.AfterFunc(ctx, h.Stop)
	defer stop()
	var event C.handoff_event
	for {
		got, err := h.call(function, func() C.int {
			return C.handoff_dispatch(h.c, &event, C.size_t(unsafe.Sizeof(event)))
		})
		switch {
		case err != nil:
			return 0, err
		case got == 0:
			if err := h.sleep(context.Background(), function, 0); err != nil {
				return 0, err
			}
		case event.kind == C.HANDOFF_EVENT_REPLACED:
			return Replaced, nil
		case event.kind == C.HANDOFF_EVENT_STOPPED:
			return Stopped, nil
		case wantsAnswer(event):
			h.lose(event)
			h.answer(ctx, event)
		default:
			h.lose(event)
			h.news(event)
		}
	}
}

func wantsAnswer(event C.handoff_event) bool {
	return event.kind == C.HANDOFF_EVENT_DRAIN || event.kind == C.HANDOFF_EVENT_SEAL || event.kind == C.HANDOFF_EVENT_RESUME
}

// An event, as the context of its hook knows it.
type openEvent struct {
	h           *Handoff
	id          C.uint64_t
	afterCommit bool
}

type eventKey struct{}

// answer runs the hook of an event, and says how it went. Silence, as of a hook that panics or ends its goroutine, is failure.
func (h *Handoff) answer(ctx context.Context, event C.handoff_event) {
	err := errors.New("the hook did not return")
	defer func() {
		if err != nil {
			h.fail(event, err)
		}
	}()
	err = h.run(ctx, event)
}

func (h *Handoff) run(ctx context.Context, event C.handoff_event) error {
	ctx, release, err := h.eventContext(ctx, event)
	if err != nil {
		return err
	}
	defer release()
	switch {
	case event.kind == C.HANDOFF_EVENT_DRAIN && h.hooks.drain != nil:
		err = h.hooks.drain(ctx)
	case event.kind == C.HANDOFF_EVENT_RESUME && h.hooks.resume != nil:
		err = h.hooks.resume(ctx)
	case event.kind == C.HANDOFF_EVENT_SEAL && h.hooks.seal != nil:
		var revisions []uint64
		if revisions, err = h.hooks.seal(ctx); err == nil {
			_, err = h.call("handoff_sealed", func() C.int {
				return C.handoff_sealed(h.c, event.id, numbers(revisions), C.size_t(len(revisions)))
			})
		}
		return err
	default:
		err = errors.New("no hook is registered")
	}
	if err == nil {
		_, err = h.call("handoff_done", func() C.int { return C.handoff_done(h.c, event.id) })
	}
	return err
}

// fail says that a hook failed. When the event is over already, nobody else would tell.
func (h *Handoff) fail(event C.handoff_event, err error) {
	name := map[C.uint32_t]string{
		C.HANDOFF_EVENT_DRAIN: "drain", C.HANDOFF_EVENT_SEAL: "seal", C.HANDOFF_EVENT_RESUME: "resume",
	}[event.kind]
	text := fmt.Sprintf("the %s failed: %v", name, err)
	if h.sink != nil {
		h.sink.push(line{slog.LevelError, "handoff", text})
	}
	why := C.CString(strings.ReplaceAll(err.Error(), "\x00", "\uFFFD"))
	defer cFree(why)
	// An error: it is over, as most likely err says.
	_, _ = h.call("handoff_failed", func() C.int { return C.handoff_failed(h.c, event.id, why) })
}

// eventContext makes the context of a hook, and what ends it.
func (h *Handoff) eventContext(ctx context.Context, event C.handoff_event) (context.Context, func(), error) {
	leftMs, err := h.call("handoff_remaining_ms", func() C.int { return C.handoff_remaining_ms(h.c, event.id) })
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	ctx = context.WithValue(ctx, eventKey{}, openEvent{h, event.id, committed(event)})
	ctx = lost.Context(ctx, &h.lost)
	stopTimer := func() {}
	if leftMs != math.MaxInt32 {
		ctx, stopTimer = context.WithTimeout(ctx, time.Duration(leftMs)*time.Millisecond)
	}
	stopWatch, err := watch(int(event.cancel_fd), cancel)
	if err != nil {
		stopTimer()
		cancel(err)
		return nil, nil, err
	}
	return ctx, func() {
		stopWatch()
		stopTimer()
		cancel(ErrStale)
	}, nil
}

// watch cancels with ErrStale when fd becomes readable, until the function that it returns has been called.
func watch(fd int, cancel context.CancelCauseFunc) (func(), error) {
	if fd < 0 {
		return func() {}, nil
	}
	w, err := newWaiter(fd)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if w.readable() == nil {
			cancel(ErrStale)
		}
	}()
	return func() {
		w.wake()
		<-ended
		w.close()
	}, nil
}

// Progress says how far a hook is, which is shown to people. ctx is the hook's, or made from it.
//
// Errors: [ErrStale] once the event is cancelled or late; [ErrInvalid]: ctx is not of a hook.
func Progress(ctx context.Context, done, total uint64) error {
	const function = "handoff_progress"
	event, ok := ctx.Value(eventKey{}).(openEvent)
	if !ok {
		return &Error{ErrInvalid, function, "the context is not that of a hook"}
	}
	_, err := event.h.call(function, func() C.int {
		return C.handoff_progress(event.h.c, event.id, C.uint64_t(done), C.uint64_t(total))
	})
	return err
}

func numbers(revisions []uint64) *C.uint64_t { return (*C.uint64_t)(unsafe.SliceData(revisions)) }
