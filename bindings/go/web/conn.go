package web

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Of a request that has begun and is not complete; and of all that moves with a connection, the library takes 60 KiB.
const pendingMax = 32 << 10

var (
	longAgo = time.Unix(1, 0)
	// As from a connection that was closed: net/http says nothing to the client after such an error.
	errMoved = &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
)

// A conn is a connection that can be taken away from its http.Server between two requests, also in the middle of the head of one.
//
// It knows what was read and belongs to no request that the server has seen: after a request with a head of h bytes and a body of
// b bytes that is what follows the first h+b bytes. If it can not know it, as with a chunked body, or what it has to do with is
// not HTTP/1, the connection stays where it is.
type conn struct {
	net.Conn
	server *Server

	mu       sync.Mutex
	deadline time.Time // for reading, as the http.Server wants it
	poked    bool      // it has another one, so that Read comes back
	active   bool      // from the end of the head of a request to the end of its answer
	known    bool      // the handler has told of the request
	fixed    bool      // can not be moved
	moved    bool      // taken away: the http.Server sees a closed connection
	pending  []byte    // what was read, and belongs to the next request
	body     int64     // bytes of this request's body that are still to be read
	ahead    []byte    // what is to be read before anything else

	given bool // the successor has it, too; the server's mu
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		if c.leave(nil) {
			return 0, errMoved
		}
		if n := c.readAhead(p); n > 0 {
			return n, nil
		}
		n, err := c.Conn.Read(p)
		switch {
		case n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !c.late():
			// Only woken.
		case n > 0 && c.leave(p[:n]):
			return 0, errMoved
		default:
			c.note(p[:n])
			return n, err
		}
	}
}

// leave takes the connection away from its http.Server, if it is to be moved, and can be now. read is what has just come.
func (c *conn) leave(read []byte) bool {
	c.mu.Lock()
	if c.moved || !c.server.moving.Load() || !c.movable(read) {
		defer c.mu.Unlock()
		return c.moved // net/http reads once more after an error
	}
	c.moved = true
	c.ahead = append(append(c.pending, read...), c.ahead...)
	c.mu.Unlock()
	c.server.keep(c)
	return true
}

// movable needs mu. read has just come, beside what is pending.
func (c *conn) movable(read []byte) bool {
	if c.active || c.fixed || len(c.pending)+len(read) > pendingMax {
		return false
	}
	head := append(c.pending[:len(c.pending):len(c.pending)], read...)
	// An empty line, which some clients send after a POST, is forgiven only there. "PRI " is HTTP/2.
	return len(head) == 0 || head[0] != '\r' && head[0] != '\n' && !bytes.HasPrefix(head, []byte("PRI "))
}

// note remembers what goes to the http.Server.
func (c *conn) note(read []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpoke()
	ofBody := min(c.body, int64(len(read)))
	c.body -= ofBody
	c.remember(read[ofBody:])
}

// remember needs mu.
func (c *conn) remember(read []byte) {
	if c.fixed {
		return
	}
	c.pending = append(c.pending, read...)
	if len(c.pending) > pendingMax {
		c.fix()
	}
}

// fix needs mu.
func (c *conn) fix() { c.fixed, c.pending = true, nil }

func (c *conn) readAhead(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(p, c.ahead)
	c.remember(c.ahead[:n])
	c.ahead = c.ahead[n:]
	return n
}

// unread puts back what was read before an http.Server has the connection.
func (c *conn) unread() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead, c.pending = c.pending, nil
}

// begin is called by the handler, which knows the request.
func (c *conn) begin(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := headEnd(c.pending)
	if c.fixed || end < 0 || r.ProtoMajor != 1 || r.ContentLength < 0 {
		c.fix()
		return
	}
	c.known = true
	read := c.pending[end:]
	ofBody := min(r.ContentLength, int64(len(read)))
	c.body = r.ContentLength - ofBody
	c.pending = append(c.pending[:0], read[ofBody:]...)
}

// become follows the http.Server; whether the connection can be moved once it is idle.
func (c *conn) become(state http.ConnState) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpoke()
	switch state {
	case http.StateActive:
		c.active = true
	case http.StateIdle:
		if !c.known || c.body > 0 { // answered without our handler, or without all of the body
			c.fix()
		}
		c.active, c.known = false, false
	case http.StateHijacked:
		c.fix()
	}
	return !c.fixed
}

// stays: it can not be moved.
func (c *conn) stays() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fixed
}

// poke wakes a Read that waits for a request. It can do nothing to one that reads a request's body.
func (c *conn) poke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.moved && c.movable(nil) {
		c.poked = true
		_ = c.Conn.SetReadDeadline(longAgo)
	}
}

func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpoke()
}

// unpoke needs mu.
func (c *conn) unpoke() {
	if c.poked {
		c.poked = false
		_ = c.Conn.SetReadDeadline(c.deadline)
	}
}

// late: the deadline that is over is the http.Server's own.
func (c *conn) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.moved && !c.deadline.IsZero() && !time.Now().Before(c.deadline)
}

func (c *conn) isMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.poked || c.moved {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.isMoved() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) Write(p []byte) (int, error) {
	if c.isMoved() {
		return 0, errMoved
	}
	return c.Conn.Write(p)
}

// ReadFrom lets a file go out without a copy, as on a connection of package net.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if c.isMoved() {
		return 0, errMoved
	}
	return io.Copy(c.Conn, r)
}

func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if c.isMoved() || !ok {
		return errMoved
	}
	return half.CloseWrite()
}

func (c *conn) Close() error {
	if c.isMoved() {
		return nil
	}
	return c.Conn.Close()
}

// headEnd is where the head of a request ends, with an empty line; -1 if it does not. Lines end as package net/textproto has it.
func headEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 {
			return -1
		}
		i += end
		switch rest := b[i+1:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 2
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 3
		}
	}
	return -1
}
