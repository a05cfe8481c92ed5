package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"handoff"
)

const margin = 50 * time.Millisecond // before the end of the grace: a late answer is none

// What the clients are to do.
type mode int

const (
	serving  mode = iota
	moving        // finish the request, and wait without a goroutine for what becomes of the handoff
	stopping      // finish the request, and hang up: nobody comes after us
)

// The server is a goroutine for each client, and one that accepts.
type server struct {
	h     *handoff.Handoff
	store *store

	listener  net.Listener // nil while nobody accepts
	accepting chan struct{}

	mu      sync.Mutex
	mode    mode
	clients map[*client]struct{} // each has a goroutine
	parked  []*client            // these have none: they are being moved
	gone    chan struct{}        // closed when no client has a goroutine any more, while we do not serve
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
			s.run(&client{server: s, conn: conn})
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(10 * time.Millisecond) // no descriptor left, until a client hangs up
		}
	}
}

func (s *server) run(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = struct{}{}
	go c.serve()
}

// take goes on with the clients of the incumbent.
func (s *server) take() error {
	connections, err := s.h.Connections()
	for _, c := range connections {
		s.run(&client{server: s, conn: c.Conn, in: c.State})
	}
	return err
}

// end stops accepting: whoever knocks from here on waits in the backlog for the one that serves next. Then it waits until no
// client has a goroutine any more, or ctx is done.
func (s *server) end(ctx context.Context, mode mode) error {
	if s.listener != nil {
		s.listener.Close()
		<-s.accepting
		s.listener = nil
	}
	s.mu.Lock()
	s.mode, s.gone = mode, make(chan struct{})
	gone := s.gone
	for c := range s.clients {
		c.conn.SetReadDeadline(time.Now()) // wakes those that wait for a request
	}
	s.tellIfGone()
	s.mu.Unlock()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return errors.New("a client does not read its reply")
	}
}

// move gives the clients to the successor. Ours stay open, and untouched, until we know who serves.
func (s *server) move(ctx context.Context) error {
	if err := s.end(ctx, moving); err != nil {
		return err
	}
	if err := handoff.PutState(ctx, "lineage", []byte(s.store.lineage)); err != nil {
		return err
	}
	for _, c := range s.parked {
		if err := handoff.PutConnection(ctx, "client", c.conn.(syscall.Conn), c.in); err != nil {
			return err
		}
	}
	return nil
}

// lose closes the clients that a successor has had that has committed: what we know of them is not true any more.
func (s *server) lose() {
	for _, c := range s.parked {
		c.conn.Close()
	}
	s.parked = nil
}

// resume goes on with the parked clients, as if nothing had been.
func (s *server) resume() {
	s.mu.Lock()
	parked := s.parked
	s.mode, s.gone, s.parked = serving, nil, nil
	for c := range s.clients { // they were not in time
		c.conn.SetReadDeadline(time.Time{})
	}
	s.mu.Unlock()
	for _, c := range parked {
		c.conn.SetReadDeadline(time.Time{})
		s.run(c)
	}
}

func (s *server) stop(ctx context.Context) {
	_ = s.end(ctx, stopping) // those that are left have had their time
}

// park is for a client that is at the end of a request. False: the drain was given up in between.
func (s *server) park(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode != moving {
		return false
	}
	s.parked = append(s.parked, c)
	s.left(c)
	return true
}

func (s *server) hungUp(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left(c)
}

// left needs mu.
func (s *server) left(c *client) {
	delete(s.clients, c)
	s.tellIfGone()
}

// tellIfGone needs mu.
func (s *server) tellIfGone() {
	if len(s.clients) == 0 && s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
}

func (s *server) modeNow() mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode
}
