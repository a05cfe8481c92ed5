package handoff

// #include "shim.h"
// #include <stdlib.h>
import "C"

import (
	"strings"
	"unsafe"
)

// A Code says what went wrong, as the numbers of handoff.h do. Each is a sentinel for [errors.Is].
type Code int

const (
	// ErrInvalid: an argument, an option or a variable of the environment makes no sense.
	ErrInvalid Code = C.HANDOFF_EINVAL
	// ErrNoMemory: no memory.
	ErrNoMemory Code = C.HANDOFF_ENOMEM
	// ErrSystem: a system call failed.
	ErrSystem Code = C.HANDOFF_ESYSTEM
	// ErrBusy: another goroutine is inside a call that only one may make at a time, or a hook makes one.
	ErrBusy Code = C.HANDOFF_EBUSY
	// ErrState: not in this phase, not in this version of the library, or after Close.
	ErrState Code = C.HANDOFF_ESTATE
	// ErrForked: called in a forked child.
	ErrForked Code = C.HANDOFF_EFORKED
	// ErrPanic: the library panicked, which is a bug in it; the handle can only be closed.
	ErrPanic Code = C.HANDOFF_EPANIC
	// ErrAborted: the handoff was aborted: exit, touching nothing.
	ErrAborted Code = C.HANDOFF_EABORTED
	// ErrStale: the event is over: answered, cancelled or late.
	ErrStale Code = C.HANDOFF_ESTALE
	// ErrLocked: somebody else may write the data; the detail names the process.
	ErrLocked Code = C.HANDOFF_ELOCKED
	// ErrSealed: the data must not be written now.
	ErrSealed Code = C.HANDOFF_ESEALED
	// ErrNotGiven: no listener at all was given to this process: bind your own.
	ErrNotGiven Code = C.HANDOFF_ENOTGIVEN
	// ErrRefused: the other side refuses.
	ErrRefused Code = C.HANDOFF_EREFUSED
	// ErrVersion: no protocol version in common.
	ErrVersion Code = C.HANDOFF_EVERSION
	// ErrProtocol: the other side broke the protocol.
	ErrProtocol Code = C.HANDOFF_EPROTOCOL
	// ErrTooBig: more than fits.
	ErrTooBig Code = C.HANDOFF_ETOOBIG
	// ErrDuplicate: twice the same name or key.
	ErrDuplicate Code = C.HANDOFF_EDUPLICATE
	// ErrLimit: a limit of the process or of the system.
	ErrLimit Code = C.HANDOFF_ELIMIT
	// ErrStopped: Stop was called.
	ErrStopped Code = C.HANDOFF_ESTOPPED
	// ErrResume: this process can not take over again: exit, the data is not yours.
	ErrResume Code = C.HANDOFF_ERESUME
	// ErrNoName: listeners were given, but none of this name.
	ErrNoName Code = C.HANDOFF_ENONAME
)

// Error says what the code means.
func (c Code) Error() string { return C.GoString(C.handoff_strerror(C.int(c))) }

// An Error is what a call that failed returns.
type Error struct {
	// Code is what [errors.Is] finds.
	Code Code
	// Func is the function of the C library.
	Func string
	// Detail is for people: what was tried, on what, and what to do.
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Func + ": " + e.Code.Error()
	}
	return e.Func + ": " + e.Detail
}

// Unwrap gives the code.
func (e *Error) Unwrap() error { return e.Code }

const detailBytes = 1024

// check makes an error of a negative result. The detail is that of the last call that failed: when two fail in the same
// instant, both may get that of one; the code is always right.
func (h *Handoff) check(function string, result C.int) error {
	if result >= 0 {
		return nil
	}
	var buf [detailBytes]C.char
	C.handoff_errmsg(h.c, &buf[0], detailBytes)
	return &Error{Code(result), function, C.GoString(&buf[0])}
}

// cString copies s; an error if C would see only a part of it.
func cString(s string) (*C.char, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, &Error{ErrInvalid, "handoff", "a string contains a zero byte"}
	}
	return C.CString(s), nil
}

func cFree(s *C.char) { C.free(unsafe.Pointer(s)) }
