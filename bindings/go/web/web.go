// Package web drains servers of net/http without losing a request.
//
// [http.Server.Shutdown] alone does: it closes, without an answer, each connection whose request it reads after it was called,
// also of clients that had connected before.
package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// For clients that keep their connection, to ask once more and be told that it ends. Meanwhile the server accepts. Who is
	// silent for longer finds the connection closed, and connects again, as HTTP has it (RFC 9112, 9.3.1).
	goodbye = 200 * time.Millisecond
	// For clients that have connected, and not asked yet, after the server has stopped accepting.
	firstRequest = time.Second
)

// A Server is an [http.Server] that can be drained. It serves one listener, once: after a drain make a new one.
type Server struct {
	server   *http.Server
	leaving  atomic.Bool
	listener net.Listener
	served   chan struct{}

	mu      sync.Mutex
	conns   map[net.Conn]http.ConnState
	changed chan struct{} // closed at each change of conns, and made anew
}

// New takes over server, which must not have served: it wraps its Handler and its ConnState.
func New(server *http.Server) *Server {
	s := &Server{
		server: server, served: make(chan struct{}), conns: make(map[net.Conn]http.ConnState), changed: make(chan struct{}),
	}
	handler, connState := server.Handler, server.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		s.track(conn, state)
		if connState != nil {
			connState(conn, state)
		}
	}
	return s
}

// Serve accepts and serves, and returns nil when Drain has ended that.
func (s *Server) Serve(listener net.Listener) error {
	s.mu.Lock()
	s.listener = listener
	s.mu.Unlock()
	defer close(s.served)
	err := s.server.Serve(listener)
	if s.leaving.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

// Drain stops the server: clients that keep their connection are told that it ends, the listener is closed, and every request is
// answered. Connections that were hijacked are not its business.
//
// An error: ctx was done before the last answer was given.
func (s *Server) Drain(ctx context.Context) error {
	s.leaving.Store(true)
	s.mu.Lock()
	listener, before := s.listener, make([]net.Conn, 0, len(s.conns))
	for conn := range s.conns {
		before = append(before, conn)
	}
	s.mu.Unlock()
	if listener == nil {
		return s.server.Shutdown(ctx) // Serve has not come so far, and will return at once
	}
	s.until(ctx, goodbye, func() bool { return !s.any(before) })
	listener.Close()
	<-s.served                           // whatever was accepted is in conns now
	s.server.SetKeepAlivesEnabled(false) // for answers that began before the drain
	s.until(ctx, firstRequest, func() bool { return !s.in(http.StateNew) && !s.in(http.StateActive) })
	s.closeSilent()
	s.until(ctx, 0, func() bool { return !s.in(http.StateActive) })
	return s.server.Shutdown(ctx)
}

// closeSilent spares Shutdown the five seconds that it gives to whoever has connected and not asked.
func (s *Server) closeSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, state := range s.conns {
		if state == http.StateNew {
			conn.Close()
		}
	}
}

func (s *Server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.conns, conn)
	} else {
		s.conns[conn] = state
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// any needs mu.
func (s *Server) any(conns []net.Conn) bool {
	for _, conn := range conns {
		if _, there := s.conns[conn]; there {
			return true
		}
	}
	return false
}

// in needs mu.
func (s *Server) in(state http.ConnState) bool {
	for _, other := range s.conns {
		if other == state {
			return true
		}
	}
	return false
}

// until waits until so is true, ctx is done or limit is over, 0 for none.
func (s *Server) until(ctx context.Context, limit time.Duration, so func() bool) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	for {
		s.mu.Lock()
		is, changed := so(), s.changed
		s.mu.Unlock()
		if is {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
