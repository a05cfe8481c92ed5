// Package web lets servers of net/http be replaced without losing a request or a connection.
//
// [http.Server.Shutdown] alone does: it closes connections that are idle, and, without an answer, each connection whose request it
// reads after it was called, also of clients that had connected before.
package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"handoff"
	"handoff/internal/lost"
)

const (
	// For clients that keep their connection, to ask once more and be told that it ends. Meanwhile the server accepts. Who is
	// silent for longer finds the connection closed, and connects again, as HTTP has it (RFC 9112, 9.3.1).
	goodbye = 200 * time.Millisecond
	// For clients that have connected, and not asked yet, after the server has stopped accepting.
	firstRequest = time.Second
	// Of each connection that is moved.
	connectionName = "http"
)

// A Server is an [http.Server] that can be replaced (Move) and stopped (Drain). It serves one listener at a time.
type Server struct {
	server  *http.Server
	telling atomic.Bool // that connections end
	moving  atomic.Bool // what can be moved goes away from the http.Server
	drained atomic.Bool

	mu      sync.Mutex
	session *session // nil: nobody accepts
	conns   map[net.Conn]http.ConnState
	kept    []*conn       // those that were taken away from the http.Server
	changed chan struct{} // closed at each change of the above, and made anew
}

// A session is one call of Serve.
type session struct {
	listener net.Listener
	woken    *woken
	ended    chan struct{}
}

type connKey struct{}

// New takes over server, which must not have served: it wraps its Handler, its ConnState and its ConnContext. The connections that these
// see are not the listener's own: they are to be used as [net.Conn].
func New(server *http.Server) *Server {
	s := &Server{server: server, conns: make(map[net.Conn]http.ConnState), changed: make(chan struct{})}
	handler, connState, connContext := server.Handler, server.ConnState, server.ConnContext
	if handler == nil {
		handler = http.DefaultServeMux
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*conn)
		if ok {
			c.begin(r)
		}
		if s.drained.Load() || s.telling.Load() && (!ok || c.stays()) {
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
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, conn)
		}
		return context.WithValue(ctx, connKey{}, conn)
	}
	return s
}

// Serve accepts and serves, and returns nil when Move or Drain has ended that. It goes on with the connections that the
// incumbent has moved, which are now its own, and, after a handoff that was undone, with those that Move has taken away. Those that a
// successor has had are closed by then, if it has committed and died.
func (s *Server) Serve(listener net.Listener, moved ...*handoff.Connection) error {
	session := &session{listener: listener, woken: newWoken(listener.Addr()), ended: make(chan struct{})}
	defer close(session.ended)
	if !s.begin(session, moved) {
		return nil // drained before it began
	}
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		_ = s.server.Serve(session.woken) // it ends with the other one
	}()
	err := s.server.Serve(&accepting{listener, s})
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
	session.woken.Close()
	<-idle
	if (s.drained.Load() || s.moving.Load()) && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

func (s *Server) begin(session *session, moved []*handoff.Connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.kept
	s.kept = nil
	for _, c := range moved {
		kept = append(kept, &conn{Conn: c.Conn, ahead: c.State})
	}
	if s.drained.Load() {
		for _, c := range kept {
			c.Conn.Close()
		}
		return false
	}
	s.telling.Store(false)
	s.moving.Store(false)
	for other := range s.conns {
		if c, ok := other.(*conn); ok {
			c.resume() // it was not in time for Move
		}
	}
	s.session = session
	s.tell()
	for _, c := range kept {
		s.wait(c)
	}
	return true
}

// Move stops the server, and gives its connections to the successor; ctx is that of the drain hook. Requests that are under way are
// answered first. The successor serves what [handoff.Handoff.Connections] gives it with Serve; after an undo that is called again
// with a listener, and goes on with all.
//
// A connection moves between two requests, or before the head of one is complete. One with TLS or HTTP/2, and one
// that has had a request without a Content-Length but with a body, can not be moved: the client is told that it ends, with the
// next answer, and the connection is closed after a while. One that was hijacked is not its business. The successor has all
// as connections of the name "http".
//
// An error: ctx was done before the last answer was given, or as of [handoff.PutConnection].
func (s *Server) Move(ctx context.Context) error {
	var session *session
	if !s.until(ctx, 0, func() bool { session = s.session; return session != nil }) {
		return context.Cause(ctx)
	}
	s.telling.Store(true)
	before := s.among(stays)
	s.until(ctx, goodbye, func() bool { return !s.any(before) })
	s.moving.Store(true)
	s.stopAccepting(session)
	for _, other := range s.among(func(net.Conn, http.ConnState) bool { return true }) {
		if c, ok := other.(*conn); ok {
			c.poke()
		}
	}
	s.settle(ctx, stays)
	if !s.until(ctx, 0, func() bool { return len(s.conns) == 0 }) {
		return context.Cause(ctx)
	}
	return s.put(ctx)
}

// put leaves the connections as they are, for Serve, unless the successor is one that takes none.
func (s *Server) put(ctx context.Context) error {
	lost.When(ctx, s.lose)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.kept {
		err := handoff.PutConnection(ctx, connectionName, c.Conn.(syscall.Conn), c.ahead)
		if errors.Is(err, handoff.ErrRefused) {
			break
		}
		if err != nil {
			return err
		}
		c.given = true
	}
	return nil
}

// lose closes what the successor has, for good.
func (s *Server) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*conn
	for _, c := range s.kept {
		if c.given {
			c.Conn.Close()
		} else {
			kept = append(kept, c)
		}
	}
	s.kept = kept
}

// Drain stops the server for good: clients that keep their connection are told that it ends, the listener is closed, and every
// request is answered. Connections that were hijacked are not its business.
//
// An error: ctx was done before the last answer was given.
func (s *Server) Drain(ctx context.Context) error {
	all := func(net.Conn, http.ConnState) bool { return true }
	s.drained.Store(true)
	before := s.among(all)
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session == nil {
		return s.server.Shutdown(ctx) // Serve has not come so far, and will return at once
	}
	s.until(ctx, goodbye, func() bool { return !s.any(before) })
	s.stopAccepting(session)
	s.server.SetKeepAlivesEnabled(false) // for answers that began before the drain
	s.settle(ctx, all)
	return s.server.Shutdown(ctx)
}

// stopAccepting returns when whatever was accepted is in conns.
func (s *Server) stopAccepting(session *session) {
	session.listener.Close()
	<-session.ended
}

// settle waits for the answers to those that which chooses, and closes those that ask nothing. Shutdown would give
// five seconds to whoever has connected and not asked.
func (s *Server) settle(ctx context.Context, which func(net.Conn, http.ConnState) bool) {
	asks := func(conn net.Conn, state http.ConnState) bool { return state != http.StateIdle && which(conn, state) }
	s.until(ctx, firstRequest, func() bool { return !s.has(asks) })
	for _, conn := range s.among(func(conn net.Conn, state http.ConnState) bool {
		return state != http.StateActive && which(conn, state)
	}) {
		conn.Close()
	}
	s.until(ctx, 0, func() bool { return !s.has(asks) })
}

// stays: Move can not move it.
func stays(other net.Conn, _ http.ConnState) bool {
	c, ok := other.(*conn)
	return !ok || c.stays()
}

func (s *Server) track(other net.Conn, state http.ConnState) {
	c, ok := other.(*conn)
	movable := ok && c.become(state)
	if state == http.StateIdle && !movable && s.moving.Load() {
		other.Close() // it could not be told: its answer had begun
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.conns, other)
	} else {
		s.conns[other] = state
	}
	s.tell()
}

// tell needs mu.
func (s *Server) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// among gives those that which chooses.
func (s *Server) among(which func(net.Conn, http.ConnState) bool) []net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chosen []net.Conn
	for conn, state := range s.conns {
		if which(conn, state) {
			chosen = append(chosen, conn)
		}
	}
	return chosen
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

// has needs mu.
func (s *Server) has(which func(net.Conn, http.ConnState) bool) bool {
	for conn, state := range s.conns {
		if which(conn, state) {
			return true
		}
	}
	return false
}

// until waits until so is true, ctx is done or limit is over, 0 for none; whether so is true.
func (s *Server) until(ctx context.Context, limit time.Duration, so func() bool) bool {
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
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
