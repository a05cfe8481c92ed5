package handoff

// #include "shim.h"
import "C"

import (
	"context"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A Connection is one that the incumbent moved.
type Connection struct {
	// Name is what the incumbent called it.
	Name string
	// State is what the incumbent gave along: for example what it had read, and not executed.
	State []byte
	// Conn is a *[net.TCPConn], *[net.UnixConn], *[net.UDPConn] or *[net.IPConn], which is this process's alone. Nil for a descriptor that
	// package net does not know; that is in File.
	Conn net.Conn
	// File is nil if Conn is not.
	File *os.File
}

// PutConnection gives the successor a connection, with up to 60 KiB of state; ctx is that of the drain or of the seal, or made
// from it. A duplicate is sent: keep conn, open and untouched, until the resume, which may use it as if nothing had been, unless
// [AfterCommit] says that it is to be closed, or until Serve returns [Replaced]. So before this call no goroutine may read from it or write to it any more; SetReadDeadline wakes one
// that waits, and no byte is lost by that. What was read already belongs into the state.
//
// The connections of package net are a [syscall.Conn], and so is an *[os.File], as for a pipe; a *[crypto/tls.Conn] is none, since it
// has keys that can not be moved. The flags of the descriptor are left alone.
//
// It waits while the successor has not taken what was given before. After an undo everything is given anew.
//
// Errors: [ErrStale] once the event is cancelled or late. [ErrInvalid]: ctx is not of a hook, or the descriptor can not be
// given. [ErrTooBig]; [ErrDuplicate]: this connection was given already. [ErrRefused]: the successor takes nothing, and the
// handoff goes on without. [ErrLimit]: no descriptor is left.
func PutConnection(ctx context.Context, name string, conn syscall.Conn, state []byte) error {
	return put(ctx, "handoff_put_connection", name, conn, func(event openEvent, name *C.char, fd C.int) C.int {
		return C.handoff_go_put_connection(event.h.c, fd, name, octets(state), C.size_t(len(state)))
	})
}

// PutState gives the successor a copy of data, under a key of 1 to 255 bytes; otherwise it is as PutConnection.
func PutState(ctx context.Context, key string, data []byte) error {
	return put(ctx, "handoff_put_state", key, nil, func(event openEvent, key *C.char, _ C.int) C.int {
		return C.handoff_go_put_state(event.h.c, key, octets(data), C.size_t(len(data)))
	})
}

// PutStateFile gives the successor a file, or what [golang.org/x/sys/unix.MemfdCreate] made, of any size and without a copy. Both have the
// same file then, and the same offset in it: leave it as it is until the resume, or until Serve returns [Replaced]. Otherwise
// it is as PutState.
func PutStateFile(ctx context.Context, key string, file *os.File) error {
	return put(ctx, "handoff_put_state_fd", key, file, func(event openEvent, key *C.char, fd C.int) C.int {
		return C.handoff_put_state_fd(event.h.c, key, fd)
	})
}

// put runs f for the event of ctx. The descriptor, if there is one, stays open meanwhile, and keeps its flags, unlike with File.Fd.
func put(ctx context.Context, function, name string, conn syscall.Conn, f func(openEvent, *C.char, C.int) C.int) error {
	event, ok := ctx.Value(eventKey{}).(openEvent)
	if !ok {
		return &Error{ErrInvalid, function, "the context is not that of a hook"}
	}
	c, err := cString(name)
	if err != nil {
		return err
	}
	defer cFree(c)
	if conn == nil {
		_, err := event.h.call(function, func() C.int { return f(event, c, -1) })
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var putErr error
	err = raw.Control(func(fd uintptr) {
		_, putErr = event.h.call(function, func() C.int { return f(event, c, C.int(fd)) })
	})
	if err != nil {
		return err
	}
	return putErr
}

func octets(data []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(data)) }

// Connections gives what the incumbent moved, in its order, once Ready has returned nil, and before Serve: each connection once, and
// none in a cold start. What a client has sent meanwhile is still to be read. With an error come those that were taken before it.
func (h *Handoff) Connections() ([]*Connection, error) {
	const function = "handoff_next_connection"
	if err := h.own(function); err != nil {
		return nil, err
	}
	defer h.disown()
	var connections []*Connection
	for {
		var c C.handoff_connection
		var connection *Connection
		// Within the call: name and state are borrowed until the next one, or until the handle goes.
		more, err := h.call(function, func() C.int {
			result := C.handoff_next_connection(h.c, &c, C.size_t(unsafe.Sizeof(c)))
			if result == 1 {
				connection = &Connection{Name: C.GoString(c.name), State: copied(c.state, c.state_size)}
			}
			return result
		})
		if err != nil || more == 0 {
			return connections, err
		}
		connection.Conn, connection.File = openConnection(int(c.fd), connection.Name)
		connections = append(connections, connection)
	}
}

// openConnection takes over fd. [net.FileConn] makes a duplicate of its own, and sets O_NONBLOCK, which concerns nobody else any more.
func openConnection(fd int, name string) (net.Conn, *os.File) {
	file := os.NewFile(uintptr(fd), name)
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, file
	}
	file.Close()
	return conn, nil
}

// State gives a copy of what the incumbent put under this key, once WaitForBegin has returned nil. What is too big for a copy
// comes without one from TakeStateFile.
//
// Errors: [ErrNoName]: there is none, as in a cold start. [ErrInvalid]: it is a file, take that. [ErrState]: too early.
func (h *Handoff) State(key string) ([]byte, error) {
	var state []byte
	_, err := h.get("handoff_get_state", key, func(key *C.char) C.int {
		var data unsafe.Pointer
		var size C.size_t
		result := C.handoff_get_state(h.c, key, &data, &size)
		if result >= 0 {
			state = copied(data, size)
		}
		return result
	})
	return state, err
}

// TakeStateFile gives the file that the incumbent put under this key, or the sealed memory of what it put with PutState, once, and
// once WaitForBegin has returned nil. Close it. Until Ready has returned nil only read it, and with ReadAt: the incumbent
// may yet go on with it, and shares its offset.
//
// Errors: [ErrNoName]: there is none, or it was taken. [ErrState]: too early.
func (h *Handoff) TakeStateFile(key string) (*os.File, error) {
	fd, err := h.get("handoff_take_state_fd", key, func(key *C.char) C.int {
		return C.handoff_take_state_fd(h.c, key)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), key), nil
}

func (h *Handoff) get(function, key string, f func(*C.char) C.int) (C.int, error) {
	if err := h.own(function); err != nil {
		return 0, err
	}
	defer h.disown()
	c, err := cString(key)
	if err != nil {
		return 0, err
	}
	defer cFree(c)
	return h.call(function, func() C.int { return f(c) })
}

func copied(data unsafe.Pointer, size C.size_t) []byte {
	return append([]byte{}, unsafe.Slice((*byte)(data), int(size))...)
}
