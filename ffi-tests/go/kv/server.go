package main

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"handoff"
)

const (
	lineBytesMax = 4096
	firstRequest = 20 * time.Millisecond // whoever has just connected is about to ask
	hangUp       = time.Second           // for a client that was told to hang up
	sendTime     = 5 * time.Second       // for a client to read its reply
	margin       = 50 * time.Millisecond // before the end of the grace: a late answer is none
)

// The server is a goroutine for each client, and one that accepts.
type server struct {
	h     *handoff.Handoff
	store *store

	listener  net.Listener // nil while nobody accepts
	accepting chan struct{}

	mu       sync.Mutex
	draining bool
	clients  map[net.Conn]struct{}
	gone     chan struct{} // closed when the last client has gone while we drain
}

// start accepts on the listener that was given, or, without a supervisor, on one of our own.
func (s *server) start() error {
	listener, err := s.h.Listener("kv")
	if errors.Is(err, handoff.ErrNotGiven) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.draining = false
	s.mu.Unlock()
	s.listener, s.accepting = listener, make(chan struct{})
	go s.accept(listener, s.accepting)
	return nil
}

func (s *server) accept(listener net.Listener, ended chan struct{}) {
	defer close(ended)
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			s.mu.Lock()
			s.clients[conn] = struct{}{}
			s.mu.Unlock()
			go s.serve(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(10 * time.Millisecond) // no descriptor left, until a client hangs up
		}
	}
}

// drain stops accepting: whoever knocks from here on waits in the backlog for the one that serves next. Then it waits until
// the clients have gone, or ctx is done.
func (s *server) drain(ctx context.Context) {
	if s.listener == nil {
		return
	}
	s.listener.Close()
	<-s.accepting
	s.listener = nil
	s.mu.Lock()
	s.draining, s.gone = true, make(chan struct{})
	gone := s.gone
	for conn := range s.clients {
		conn.SetReadDeadline(time.Now()) // wakes those that wait for a request
	}
	s.allGone()
	s.mu.Unlock()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// allGone needs mu.
func (s *server) allGone() {
	if s.draining && len(s.clients) == 0 && s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
}

func (s *server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// serve ends with the client, or when it was told to hang up.
func (s *server) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.clients, conn)
		s.allGone()
		s.mu.Unlock()
	}()
	in := bufio.NewReaderSize(conn, lineBytesMax)
	asked := false
	var part string // of a line, before its reading was interrupted
	for {
		line, err := in.ReadSlice('\n')
		part += string(line)
		switch {
		case len(part) > lineBytesMax || errors.Is(err, bufio.ErrBufferFull):
			say(conn, "ERR the line is too long")
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && !s.isDraining(): // resumed
			conn.SetReadDeadline(time.Time{})
			continue
		case errors.Is(err, os.ErrDeadlineExceeded) && !asked:
			asked = true
			conn.SetReadDeadline(time.Now().Add(firstRequest))
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			say(conn, "CLOSE")
			waitForHangUp(conn)
			return
		case err != nil:
			return
		}
		reply, last := s.answer(part)
		asked, part = true, ""
		if !say(conn, reply) {
			return
		}
		if last {
			waitForHangUp(conn)
			return
		}
	}
}

// answer executes one line; whether the reply is the last one.
func (s *server) answer(line string) (string, bool) {
	// The fence: a seal waits for those inside it, and keeps out those that come after it.
	if s.h.WriteBegin() != nil {
		return "CLOSE", true
	}
	reply, executed := s.store.execute(strings.TrimRight(line, "\r\n"))
	s.h.WriteEnd()
	switch {
	case !executed:
		return "CLOSE", true
	case s.isDraining():
		return reply + " CLOSE", true
	default:
		return reply, false
	}
}

func say(conn net.Conn, line string) bool {
	conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err := conn.Write([]byte(line + "\n"))
	return err == nil
}

// waitForHangUp reads to the end: a close with a request on the wire would be a reset.
func waitForHangUp(conn net.Conn) {
	var rest [lineBytesMax]byte
	for {
		conn.SetReadDeadline(time.Now().Add(hangUp))
		if _, err := conn.Read(rest[:]); err != nil {
			return
		}
	}
}
