package handoff

// #cgo pkg-config: handoff
// #include "shim.h"
import "C"

import (
	"os"
	"sync"
	"sync/atomic"

	"handoff/internal/lost"
)

// A Handoff is this process's part in its own replacement: its role, its listeners, its control socket and its lock. There is
// one per process.
//
// Its methods may be called from any goroutine. WaitForBegin, Warmed, Ready, Serve and the registration of hooks are for one
// at a time, and not for a hook: else they return [ErrBusy].
type Handoff struct {
	c         *C.handoff
	successor bool
	events    *waiter
	sink      *sink

	// Calls that use c, and closedBit.
	uses  atomic.Int64
	close sync.Once
	free  sync.Once

	// One of the calls that are for one at a time is under way.
	owned atomic.Bool
	ready atomic.Bool
	hooks hooks
	lost  lost.Hooks

	done    chan struct{}
	endOnce sync.Once
}

const closedBit = 1 << 62

// A Phase is where this process is.
type Phase int

// The data may be written in PhaseBegun, PhaseServing, PhaseDraining and PhaseSealing; but use WriteBegin, since a phase may
// change at any moment.
const (
	PhaseStarting Phase = C.HANDOFF_PHASE_STARTING
	PhaseBegun    Phase = C.HANDOFF_PHASE_BEGUN
	PhaseServing  Phase = C.HANDOFF_PHASE_SERVING
	PhaseDraining Phase = C.HANDOFF_PHASE_DRAINING
	PhaseSealing  Phase = C.HANDOFF_PHASE_SEALING
	PhaseSealed   Phase = C.HANDOFF_PHASE_SEALED
	PhaseResuming Phase = C.HANDOFF_PHASE_RESUMING
	PhaseReplaced Phase = C.HANDOFF_PHASE_REPLACED
)

var phaseNames = [...]string{"starting", "begun", "serving", "draining", "sealing", "sealed", "resuming", "replaced"}

func (p Phase) String() string {
	if p < 0 || int(p) >= len(phaseNames) {
		return "unknown"
	}
	return phaseNames[p]
}

// What a supervisor, or systemd, tells a process. C's environment loses these in handoff_detect_role; Go has a copy of its own,
// which os/exec would hand to children.
var consumed = [...]string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "HANDOFF_CONTROL", "HANDOFF_DATA_DIR",
	"HANDOFF_SOCK_FD", "HANDOFF_ROLE"}

// Open finds out what this process is, and makes the handle. It consumes the environment that the supervisor made,
// $HANDOFF_DATA_DIR included: read what you need of it before.
//
// It comes first in main, before a descriptor is opened, a child is started or another goroutine uses the environment: until then
// inherited descriptors are not close-on-exec, and one that was promised but is closed could be taken for yours.
// What the Go runtime itself has open is no problem.
func Open(options ...Option) (*Handoff, error) {
	config := C.handoff_config_new()
	if config == nil {
		return nil, &Error{ErrNoMemory, "handoff_config_new", ""}
	}
	defer C.handoff_config_free(config)
	s := settings{c: config}
	for _, option := range options {
		if err := option(&s); err != nil {
			return nil, err
		}
	}
	var c *C.handoff
	var why [detailBytes]C.char
	role := C.handoff_detect_role(config, &c, &why[0], detailBytes)
	for _, name := range consumed {
		_ = os.Unsetenv(name) // it can only fail for a name that is none
	}
	s.sink.write()
	if role < 0 {
		return nil, &Error{Code(role), "handoff_detect_role", C.GoString(&why[0])}
	}
	events, err := newWaiter(int(C.handoff_pollfd(c)))
	if err != nil {
		C.handoff_free(c)
		return nil, err
	}
	return &Handoff{
		c: c, successor: role == C.HANDOFF_SUCCESSOR, events: events, sink: s.sink, done: make(chan struct{}),
	}, nil
}

// IsSuccessor says whether this process was started to replace another one.
func (h *Handoff) IsSuccessor() bool { return h.successor }

// Close ends everything: the lock is released, and a successor gives up. Whoever is inside a call comes back with [ErrState]; the C
// handle goes when the last one has. Closing twice is fine. After [Replaced] there is nothing to close: exit.
func (h *Handoff) Close() error {
	h.close.Do(func() {
		h.uses.Add(closedBit + 1)
		h.events.close()
		h.leave()
		h.end()
	})
	return nil
}

// enter keeps c alive until leave.
func (h *Handoff) enter(function string) error {
	if h.uses.Add(1)&closedBit != 0 {
		h.leave()
		return &Error{ErrState, function, "the handle was closed"}
	}
	return nil
}

func (h *Handoff) leave() {
	if h.uses.Add(-1) == closedBit {
		h.free.Do(func() {
			C.handoff_free(h.c)
			h.sink.write()
		})
	}
}

// call runs a call of the library: its result, or its error.
func (h *Handoff) call(function string, f func() C.int) (C.int, error) {
	if err := h.enter(function); err != nil {
		return 0, err
	}
	result := f()
	err := h.check(function, result)
	h.leave()
	h.sink.write()
	return result, err
}

// own makes this goroutine the only one in a call that is for one at a time.
func (h *Handoff) own(function string) error {
	if !h.owned.CompareAndSwap(false, true) {
		return &Error{ErrBusy, function, "another goroutine is inside a call that is for one at a time, or this is a hook"}
	}
	return nil
}

func (h *Handoff) disown() { h.owned.Store(false) }

// Stop asks to stop: Serve, WaitForBegin and Ready come back. Before the seal a handoff is aborted; sealed, it goes on, and
// then Serve returns [Replaced], or [Stopped] after a resume. It never blocks.
func (h *Handoff) Stop() {
	if h.enter("handoff_stop") == nil {
		C.handoff_stop(h.c)
		h.leave()
	}
}

// Done is closed when Serve has returned, or at Close: from then on no hook will run.
func (h *Handoff) Done() <-chan struct{} { return h.done }

func (h *Handoff) end() { h.endOnce.Do(func() { close(h.done) }) }

// Phase is where this process is; a hint, not a fence: WriteBegin is one. After Close it is PhaseReplaced.
func (h *Handoff) Phase() Phase {
	if h.enter("handoff_phase") != nil {
		return PhaseReplaced
	}
	defer h.leave()
	return Phase(C.handoff_phase(h.c))
}
