package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	"log/slog"
)

// AfterCommit says of the context of a hook that the successor has committed.
//
// In a resume: it has died since. What it was given by [PutConnection] must be closed then, and not used again, since it may have read
// and written it; files that it was given may be half written.
//
// In a drain: this process is in overlap mode, and the successor serves. The drain can not be undone; its end is the end of
// this process.
func AfterCommit(ctx context.Context) bool {
	event, ok := ctx.Value(eventKey{}).(openEvent)
	return ok && event.afterCommit
}

// OnConfirmed registers what is to be done when the probation is over that this process was started in: nobody takes over from it any
// more, and the format on disk may be changed. It runs as other hooks do, and needs no answer.
func (h *Handoff) OnConfirmed(hook func()) error {
	return h.register("handoff_on_confirmed", func() { h.hooks.confirmed = hook })
}

// OnParked registers what is to be done when the successor serves on probation, and this process is its reserve: close what was given by
// [PutConnection], or a client sees no end of its connection when the successor hangs up. Stay sealed; a resume follows if the
// successor dies, else [Replaced]. It runs as other hooks do, and needs no answer.
func (h *Handoff) OnParked(hook func()) error {
	return h.register("handoff_on_parked", func() { h.hooks.parked = hook })
}

// OnConnections registers what takes [Handoff.Connections] in overlap mode: the incumbent gives them while it drains, and this process
// serves. It runs as other hooks do, and needs no answer. It may run inside of a drain of this process, which then runs
// again, to give them on.
func (h *Handoff) OnConnections(hook func()) error {
	return h.register("handoff_on_connections", func() { h.hooks.connections = hook })
}

// news runs what belongs to an event that wants no answer.
func (h *Handoff) news(event C.handoff_event) {
	hook, known := map[C.uint32_t]func(){
		C.HANDOFF_EVENT_CONFIRMED:   h.hooks.confirmed,
		C.HANDOFF_EVENT_PARKED:      h.hooks.parked,
		C.HANDOFF_EVENT_CONNECTIONS: h.hooks.connections,
	}[event.kind]
	if !known && h.sink != nil {
		text := fmt.Sprintf("an event of kind %d, which a newer library has, is ignored", event.kind)
		h.sink.push(line{slog.LevelInfo, "handoff", text})
	}
	if hook != nil {
		hook()
	}
}

// lose lets package web close what is the successor's for good, before a hook could go on with it.
func (h *Handoff) lose(event C.handoff_event) {
	switch {
	case event.kind == C.HANDOFF_EVENT_PARKED, event.kind == C.HANDOFF_EVENT_RESUME && committed(event):
		h.lost.Run()
	case event.kind == C.HANDOFF_EVENT_RESUME:
		h.lost.Forget()
	}
}

func committed(event C.handoff_event) bool { return event.flags&C.HANDOFF_EVENT_AFTER_COMMIT != 0 }
