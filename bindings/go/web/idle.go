package web

import (
	"net"
	"net/http"
	"sync"
	"time"

	"handoff"
)

// An accepting listener gives connections that can be moved, if those below it are plain.
type accepting struct {
	net.Listener
	server *Server
}

func (l *accepting) Accept() (net.Conn, error) {
	plain, err := l.Listener.Accept()
	switch plain.(type) {
	case *net.TCPConn, *net.UnixConn:
		c := &conn{Conn: plain, server: l.server}
		l.server.track(c, http.StateNew)
		return c, nil
	default:
		return plain, err
	}
}

// A woken listener is how an http.Server gets connections that were idle elsewhere, each when a request comes. Not before: to a
// server they are new, and ReadHeaderTimeout would begin.
type woken struct {
	addr   net.Addr
	conns  chan *conn
	closed chan struct{}
	close  sync.Once
}

func newWoken(addr net.Addr) *woken {
	return &woken{addr: addr, conns: make(chan *conn), closed: make(chan struct{})}
}

func (w *woken) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *woken) Close() error {
	w.close.Do(func() { close(w.closed) })
	return nil
}

func (w *woken) Addr() net.Addr { return w.addr }

// keep takes a connection that no http.Server has, or not any more.
func (s *Server) keep(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	switch {
	case s.moving.Load():
		s.kept = append(s.kept, c)
	case s.session != nil:
		s.wait(c) // it is new, or the handoff was undone meanwhile
	case s.drained.Load():
		c.Conn.Close()
	default:
		s.kept = append(s.kept, c) // for Serve
	}
	s.tell()
}

// Take goes on with connections that the incumbent gives while it drains, in overlap mode: with what
// [handoff.Handoff.Connections] gives to a hook of OnConnections. Also while this server is moved itself.
func (s *Server) Take(moved ...*handoff.Connection) {
	for _, c := range moved {
		s.keep(&conn{Conn: c.Conn, server: s, ahead: c.State})
	}
}

// wait goes on with a connection that no http.Server has. It needs mu and a session.
func (s *Server) wait(left *conn) {
	c := &conn{Conn: left.Conn, server: s, ahead: left.ahead}
	s.conns[c] = http.StateIdle
	go s.wake(s.session, c)
}

// wake gives a connection to the http.Server when a request comes.
func (s *Server) wake(session *session, c *conn) {
	var first [512]byte
	if len(c.ahead) == 0 {
		_ = c.SetReadDeadline(s.idleUntil())
		if n, err := c.Read(first[:]); n == 0 && err != nil {
			s.drop(c)
			return
		}
		c.unread()
	}
	_ = c.SetReadDeadline(time.Time{})
	select {
	case session.woken.conns <- c:
	case <-session.woken.closed:
		s.keep(c)
	}
}

// idleUntil is when an idle connection is closed, as net/http has it.
func (s *Server) idleUntil() time.Time {
	limit := s.server.IdleTimeout
	if limit == 0 {
		limit = s.server.ReadTimeout
	}
	if limit <= 0 {
		return time.Time{}
	}
	return time.Now().Add(limit)
}

func (s *Server) drop(c *conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.tell()
}
