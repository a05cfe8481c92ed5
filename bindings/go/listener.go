package handoff

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Listener gives the stream listener of this name: a new duplicate each time, so that a resume gets it again after the drain has
// closed it. "x" also finds systemd's "x.socket". Its connections are *[net.TCPConn] or *[net.UnixConn], and it has
// SetDeadline(time.Time), as those of package net.
//
// The socket is shared with other processes, and so it does not have what would change it for all: there is no File, and closing
// the listener of a Unix socket leaves its path. For the same reason do not use [net.FileListener] on an inherited descriptor.
//
// Errors: [ErrNotGiven]: none at all was given, use [net.Listen]. [ErrNoName]: others were. [ErrInvalid]: the supervisor was told
// ",blocking", which Go's poller can not use, or it is a datagram socket.
func (h *Handoff) Listener(name string) (net.Listener, error) {
	fd, err := h.take(name)
	if err != nil {
		return nil, err
	}
	l, err := newListener(fd, name)
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("listener %q: %w", name, err)
	}
	return l, nil
}

// PacketConn gives the datagram socket of this name: a *[net.UDPConn] or *[net.UnixConn]. Otherwise it is as Listener. Do not call its File
// method: the Fd of what that returns would make the socket blocking for all processes.
func (h *Handoff) PacketConn(name string) (net.PacketConn, error) {
	fd, err := h.take(name)
	if err != nil {
		return nil, err
	}
	// FilePacketConn makes a duplicate of its own. Since Go 1.21 it leaves O_NONBLOCK alone if that is set, and it is.
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("packet socket %q: %w", name, err)
	}
	return conn, nil
}

// take gives a duplicate, which is ours and not blocking.
func (h *Handoff) take(name string) (int, error) {
	c, err := cString(name)
	if err != nil {
		return -1, err
	}
	defer cFree(c)
	const function = "handoff_take_listener"
	result, err := h.call(function, func() C.int { return C.handoff_take_listener(h.c, c, 0) })
	if err != nil {
		return -1, err
	}
	fd := int(result)
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno == 0 && flags&syscall.O_NONBLOCK != 0 {
		return fd, nil
	}
	syscall.Close(fd)
	why := fmt.Sprintf("listener %q is blocking, and its flag is shared: give it to this program without \",blocking\"", name)
	return -1, &Error{ErrInvalid, function, why}
}

type listener struct {
	file   *os.File
	raw    syscall.RawConn
	addr   net.Addr
	closed atomic.Bool
}

// newListener takes over fd, unless it fails.
func newListener(fd int, name string) (*listener, error) {
	if listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || listening == 0 {
		return nil, &Error{ErrInvalid, "getsockopt", "not a socket that listens; PacketConn is for datagrams"}
	}
	addr, err := localAddr(fd)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &listener{file: file, raw: raw, addr: addr}, nil
}

// Accept waits in the runtime's poller; the socket's flags stay as they are.
func (l *listener) Accept() (net.Conn, error) {
	fd, errno := -1, error(nil)
	err := l.raw.Read(func(listening uintptr) bool {
		for {
			// Blocking: nobody polls it before net.FileConn has made its duplicate, which then is not.
			fd, _, errno = syscall.Accept4(int(listening), syscall.SOCK_CLOEXEC)
			if errno != syscall.EINTR && errno != syscall.ECONNABORTED {
				return errno != syscall.EAGAIN
			}
		}
	})
	switch {
	case err != nil && l.closed.Load():
		return nil, l.failed("accept", net.ErrClosed)
	case err != nil: // the deadline
		return nil, l.failed("accept", err)
	case errno != nil:
		return nil, l.failed("accept", os.NewSyscallError("accept4", errno))
	}
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, l.failed("accept", errors.Unwrap(err))
	}
	return conn, nil
}

// Close ends this duplicate only: the supervisor keeps the socket, and who connects from now on waits for whoever serves next.
func (l *listener) Close() error {
	if l.closed.Swap(true) {
		return l.failed("close", net.ErrClosed)
	}
	return l.file.Close()
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) SetDeadline(t time.Time) error { return l.file.SetReadDeadline(t) }

func (l *listener) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: l.addr.Network(), Addr: l.addr, Err: err}
}

func localAddr(fd int) (net.Addr, error) {
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	switch a := address.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(a.Addr[:]), Port: a.Port}, nil
	case *syscall.SockaddrInet6:
		return &net.TCPAddr{IP: net.IP(a.Addr[:]), Port: a.Port, Zone: zone(a.ZoneId)}, nil
	case *syscall.SockaddrUnix:
		kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
		if err == nil && kind == syscall.SOCK_SEQPACKET {
			return &net.UnixAddr{Net: "unixpacket", Name: a.Name}, nil
		}
		return &net.UnixAddr{Net: "unix", Name: a.Name}, err
	default:
		return nil, fmt.Errorf("an address family that package net does not know: %T", address)
	}
}

// zone is the name of an interface, as package net has it.
func zone(index uint32) string {
	if index == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}
