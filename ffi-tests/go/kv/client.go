package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	lineBytesMax = 4096
	firstRequest = 20 * time.Millisecond // whoever has just connected is about to ask
	hangUp       = time.Second           // for a client that was told to hang up
	sendTime     = 5 * time.Second       // for a client to read its reply
)

// A client is a connection, and what was read of it and not executed: several lines, or a part of one.
type client struct {
	server *server
	conn   net.Conn
	in     []byte
	asked  bool // it has had a reply
	told   bool // it is to hang up, and nothing more is executed
}

// serve ends with the client, or when it was told to hang up, or parked.
func (c *client) serve() {
	for connected := true; connected && !c.told; {
		if c.server.modeNow() == moving && c.server.park(c) {
			return
		}
		connected = c.serveOnce()
	}
	if c.told {
		c.waitForHangUp()
	}
	c.conn.Close()
	c.server.hungUp(c)
}

// serveOnce reads, or serves one request. False: the connection has ended.
func (c *client) serveOnce() bool {
	line, rest, whole := bytes.Cut(c.in, []byte("\n"))
	switch {
	case len(line) >= lineBytesMax:
		c.say("ERR the line is too long")
		return false
	case whole:
		reply := c.answer(string(line))
		c.in = rest
		return c.say(reply)
	default:
		return c.read()
	}
}

func (c *client) read() bool {
	var piece [lineBytesMax]byte
	n, err := c.conn.Read(piece[:])
	c.in = append(c.in, piece[:n]...)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n > 0
	}
	switch {
	case c.server.modeNow() != stopping: // to be parked, or resumed before that
		return true
	case !c.asked:
		c.asked = true
		c.conn.SetReadDeadline(time.Now().Add(firstRequest))
		return true
	default:
		c.told = true
		return c.say("CLOSE")
	}
}

// answer executes one line.
func (c *client) answer(line string) string {
	c.asked = true
	// The fence: a seal waits for those inside it, and keeps out those that come after it.
	if c.server.h.WriteBegin() != nil {
		c.told = true
		return "CLOSE"
	}
	reply, executed := c.server.store.execute(strings.TrimRight(line, "\r\n"))
	c.server.h.WriteEnd()
	switch {
	case !executed:
		c.told = true
		return "CLOSE"
	case c.server.modeNow() == stopping:
		c.told = true
		return reply + " CLOSE"
	default:
		return reply
	}
}

func (c *client) say(line string) bool {
	c.conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err := c.conn.Write([]byte(line + "\n"))
	if fault() == "fleeting" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return err == nil
}

// waitForHangUp reads to the end: a close with a request on the wire would be a reset.
func (c *client) waitForHangUp() {
	var rest [lineBytesMax]byte
	for {
		c.conn.SetReadDeadline(time.Now().Add(hangUp))
		if _, err := c.conn.Read(rest[:]); err != nil {
			return
		}
	}
}
