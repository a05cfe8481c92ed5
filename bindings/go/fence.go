package handoff

// #include "shim.h"
import "C"

// WriteBegin is the fence that every write of the data passes. If it returns nil, write, and call WriteEnd: the seal waits
// for that. Else, with [ErrSealed], the data must not be written. A check of the phase before a write is a race; this is not.
func (h *Handoff) WriteBegin() error {
	const function = "handoff_write_begin"
	if err := h.enter(function); err != nil {
		return err
	}
	defer h.leave()
	return fenced(function, C.handoff_write_begin(h.c))
}

// WriteEnd leaves the fence; [ErrState]: nobody is inside.
func (h *Handoff) WriteEnd() error {
	const function = "handoff_write_end"
	if err := h.enter(function); err != nil {
		return err
	}
	defer h.leave()
	return fenced(function, C.handoff_write_end(h.c))
}

// The fence leaves no detail.
func fenced(function string, result C.int) error {
	if result < 0 {
		return &Error{Code(result), function, ""}
	}
	return nil
}
