package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"handoff"
)

// move is a Move that is undone: outside of a hook there is no successor.
func move(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Move(ctx); err != nil && !errors.Is(err, handoff.ErrInvalid) {
		t.Error(err)
	}
}

func serve(t *testing.T, s *Server, l net.Listener, moved ...*handoff.Connection) {
	go func() {
		if err := s.Serve(l, moved...); err != nil {
			t.Error(err)
		}
	}()
}

// succeed is what the library does: another server goes on with the connections.
func succeed(t *testing.T, s *Server, l net.Listener) *Server {
	t.Helper()
	move(t, s)
	var moved []*handoff.Connection
	for _, c := range s.kept {
		moved = append(moved, &handoff.Connection{Name: connectionName, Conn: c.Conn, State: c.ahead})
	}
	next := New(&http.Server{Handler: echo})
	serve(t, next, l, moved...)
	return next
}

// echo answers with the body, or with the path if there is none.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(body) == 0 {
		body = []byte(r.URL.Path)
	}
	w.Write(body)
})

// keepAsking asks on one connection until stop, and counts the answers.
func keepAsking(t *testing.T, address net.Addr, think time.Duration, stop *atomic.Bool, answered *atomic.Int64) {
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	replies := bufio.NewReader(conn)
	for n := 0; !stop.Load() && !t.Failed(); n++ {
		want := fmt.Sprint("request ", n)
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(want), want)
		reply, err := http.ReadResponse(replies, nil)
		if err != nil {
			t.Error(n, err)
			return
		}
		text, err := io.ReadAll(reply.Body)
		if err != nil || string(text) != want || reply.Close {
			t.Error(string(text), err, reply.Close)
		}
		answered.Add(1)
		time.Sleep(think)
	}
}

// Each client keeps its one connection through undone moves and through successors.
func TestConnectionsStay(t *testing.T) {
	l := listen(t)
	s := start(t, kept(t, l), echo)
	var stop atomic.Bool
	var answered atomic.Int64
	var clients sync.WaitGroup
	for i := 0; i < 8; i++ {
		think := time.Duration(i%2) * time.Millisecond
		clients.Add(1)
		go func() {
			defer clients.Done()
			keepAsking(t, l.Addr(), think, &stop, &answered)
		}()
	}
	for i := 0; i < 30 && !t.Failed(); i++ {
		for before := answered.Load(); answered.Load() < before+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		if i%3 == 0 {
			s = succeed(t, s, kept(t, l))
		} else {
			move(t, s)
			serve(t, s, kept(t, l))
		}
	}
	stop.Store(true)
	clients.Wait()
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
}

// The body of the second looks like a request.
const body = "GET / HTTP/1.1\r\n\r\n"

var stream = "GET /first HTTP/1.1\r\nHost: x\r\n\r\n" +
	"POST /second HTTP/1.1\r\nHost: x\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body +
	"GET /third HTTP/1.1\r\nHost: x\nX: y\n\n" +
	"HEAD /fourth HTTP/1.1\r\nHost: x\r\n\r\n"

// Four requests are written at once, up to a place, and the rest behind the move: wherever it is, each gets its answer, once.
func TestRequestsAreCutAnywhere(t *testing.T) {
	l := listen(t)
	s := start(t, kept(t, l), echo)
	for cut := 0; cut <= len(stream); cut++ {
		client := dial(t, l)
		if _, err := io.WriteString(client, stream[:cut]); err != nil {
			t.Fatal(err)
		}
		if cut%2 == 0 {
			time.Sleep(time.Millisecond) // so that most of it has been read
		}
		rest := make(chan error)
		go func() {
			time.Sleep(2 * time.Millisecond)
			_, err := io.WriteString(client, stream[cut:])
			rest <- err
		}()
		if cut%3 == 0 {
			move(t, s)
			serve(t, s, kept(t, l))
		} else {
			s = succeed(t, s, kept(t, l))
		}
		if err := <-rest; err != nil {
			t.Fatal(cut, err)
		}
		for _, want := range []string{"/first", body, "/third"} {
			client.hear(t, want)
		}
		reply, err := http.ReadResponse(client.replies, &http.Request{Method: "HEAD"})
		if err != nil || reply.StatusCode != http.StatusOK || client.replies.Buffered() > 0 {
			t.Fatal(cut, reply, err, client.replies.Buffered())
		}
		client.Close()
	}
}

// A body whose end only the http.Server knows, and TLS. Who says nothing moves, too.
func TestWhoCanNotMoveIsTold(t *testing.T) {
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	for _, scheme := range []string{"http", "https"} {
		l := listen(t)
		listener, client := kept(t, l), &http.Client{Transport: &http.Transport{}}
		if scheme == "https" {
			listener, client = tls.NewListener(listener, &tls.Config{Certificates: secure.TLS.Certificates}), secure.Client()
		}
		s := start(t, listener, echo)
		ask := func() *http.Response {
			reply, err := client.Post(scheme+"://"+l.Addr().String(), "", io.NopCloser(strings.NewReader("chunked")))
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Body.Close()
			if text, err := io.ReadAll(reply.Body); err != nil || string(text) != "chunked" {
				t.Error(string(text), err)
			}
			return reply
		}
		if ask().Close {
			t.Error("told for nothing")
		}
		s.telling.Store(true) // as Move does, and gives less time then than a slow machine needs
		if !ask().Close {
			t.Error("not told")
		}
		s.telling.Store(false)
		ask() // on a connection that stays
		silent, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		if !s.until(context.Background(), patience, func() bool { return len(s.conns) == 2 }) {
			t.Fatal("in vain: two connections")
		}
		move(t, s)
		if want := map[string]int{"http": 1, "https": 0}[scheme]; len(s.kept) != want {
			t.Errorf("%s: %d connections have moved instead of %d", scheme, len(s.kept), want)
		}
	}
}

// Who is not in time for a move that is given up goes on as if nothing had been, and is moved by the next one.
func TestAMoveThatIsGivenUp(t *testing.T) {
	l := listen(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	s := start(t, kept(t, l), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-finish
		}
		echo(w, r)
	}))
	slow, idle := dial(t, l), dial(t, l)
	idle.ask(t, "/before")
	slow.send(t, "/slow")
	<-begun
	late, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Move(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	serve(t, s, kept(t, l))
	idle.ask(t, "/between")
	close(finish)
	slow.hear(t, "/slow")
	slow.ask(t, "/again")
	move(t, s)
	if len(s.kept) != 2 {
		t.Errorf("%d connections have moved instead of 2", len(s.kept))
	}
	serve(t, s, kept(t, l))
	slow.ask(t, "/after")
	idle.ask(t, "/after")
}

type dialled struct {
	net.Conn
	replies *bufio.Reader
}

func dial(t *testing.T, l net.Listener) dialled {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return dialled{conn, bufio.NewReader(conn)}
}

func (d dialled) send(t *testing.T, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(d, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
}

func (d dialled) hear(t *testing.T, want string) {
	t.Helper()
	reply, err := http.ReadResponse(d.replies, nil)
	if err != nil {
		t.Fatal(want, err)
	}
	if text, err := io.ReadAll(reply.Body); err != nil || string(text) != want || reply.Close {
		t.Fatalf("%q instead of %q, %v, close %t", text, want, err, reply.Close)
	}
}

func (d dialled) ask(t *testing.T, path string) {
	t.Helper()
	d.send(t, path)
	d.hear(t, path)
}
