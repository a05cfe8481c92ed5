package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// A waiter lets goroutines wait for a descriptor of the library in the runtime's poller, where they need no thread.
type waiter struct {
	file *os.File
	raw  syscall.RawConn
}

var longAgo = time.Unix(1, 0)

// newWaiter takes a duplicate. O_NONBLOCK, which the poller wants, goes to a description that only this process has:
// an epoll or an eventfd.
func newWaiter(fd C.int) (*waiter, error) {
	own, err := duplicate(int(fd))
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(own, true); err != nil {
		syscall.Close(own)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(own), "handoff")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &waiter{file, raw}, nil
}

func duplicate(fd int) (int, error) {
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(own), nil
}

// wait returns when the descriptor is readable, ctx is done or limit is over, 0 for none; or now and then for nothing.
// An error: it was closed, or can not be waited for.
func (w *waiter) wait(ctx context.Context, limit time.Duration) error {
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	if err := w.file.SetReadDeadline(until); err != nil {
		return err
	}
	// If it still runs after this wait, it wakes the next one for nothing.
	stop := context.AfterFunc(ctx, w.wake)
	defer stop()
	err := w.readable()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// readable returns nil when the descriptor is readable, and os.ErrDeadlineExceeded after wake.
func (w *waiter) readable() error {
	return w.raw.Read(func(fd uintptr) bool { return C.handoff_go_readable(C.int(fd)) != 0 })
}

func (w *waiter) wake() { _ = w.file.SetReadDeadline(longAgo) } // closed: then nobody waits

func (w *waiter) close() { _ = w.file.Close() }
