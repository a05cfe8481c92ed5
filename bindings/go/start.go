package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"time"
)

// Warmed says that everything is loaded that does not need the data. In a cold start it does nothing.
func (h *Handoff) Warmed() error {
	const function = "handoff_warmed"
	if err := h.own(function); err != nil {
		return err
	}
	defer h.disown()
	_, err := h.call(function, func() C.int { return C.handoff_warmed(h.c) })
	return err
}

// WaitForBegin waits until the data may be opened: then this process holds the lock. It says Warmed if that was not said.
//
// Errors: [ErrAborted]: exit. [ErrLocked]: another process serves this data. [ErrStopped]. If ctx is done, its cause: the
// handoff knows nothing of it, and the call may be made again; to give up, Close and exit.
func (h *Handoff) WaitForBegin(ctx context.Context) error {
	return h.await(ctx, "handoff_wait_for_begin", func() C.int { return C.handoff_wait_for_begin(h.c, 0) })
}

// Readiness is whether, and with what, this process could serve.
type Readiness struct {
	// Revisions are the last ones that were opened, one per shard, exactly as many as the seal hook returns: a lower one, or another
	// number of them, refuses the commit. Without revisions on both sides a lost write can not be noticed.
	Revisions []uint64
	// Unhealthy: this process could not serve; Detail says why.
	Unhealthy bool
	// FormatChanges: it will change the format on disk, so that the incumbent could not take over any more.
	FormatChanges bool
	// Detail is for people: where it listens, why it is unhealthy.
	Detail string
}

// Ready says that this process could serve, and waits for the commit. When it returns nil, accept and write.
//
// Errors: [ErrAborted]: exit, touching nothing. [ErrStopped]. If ctx is done, its cause, as in WaitForBegin; Ready may be called
// again, with the same r.
func (h *Handoff) Ready(ctx context.Context, r Readiness) error {
	detail, err := cString(r.Detail)
	if err != nil {
		return err
	}
	defer cFree(detail)
	var flags C.uint32_t
	if r.Unhealthy {
		flags |= C.HANDOFF_READY_UNHEALTHY
	}
	if r.FormatChanges {
		flags |= C.HANDOFF_READY_FORMAT_CHANGES
	}
	err = h.await(ctx, "handoff_announce_ready", func() C.int {
		return C.handoff_go_announce(h.c, flags, numbers(r.Revisions), C.size_t(len(r.Revisions)), detail)
	})
	h.ready = h.ready || err == nil
	return err
}

// The library tries a lock that somebody else holds again after this time, and the descriptor does not tell of that.
const retry = 50 * time.Millisecond

// await makes a call that does not wait until it is through, and waits in between where ctx is heard.
func (h *Handoff) await(ctx context.Context, function string, f func() C.int) error {
	if err := h.own(function); err != nil {
		return err
	}
	defer h.disown()
	for {
		result, err := h.call(function, f)
		if err != nil || result != C.HANDOFF_PENDING {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := h.sleep(ctx, function, retry); err != nil {
			return err
		}
	}
}

// sleep waits until the library has work.
func (h *Handoff) sleep(ctx context.Context, function string, limit time.Duration) error {
	err := h.events.wait(ctx, limit)
	if h.uses.Load()&closedBit != 0 {
		return &Error{ErrState, function, "the handle was closed"}
	}
	return err
}
