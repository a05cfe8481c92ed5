package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Clients without a pause keep their one connection through undone moves and through successors.
func TestConnectionsStay(t *testing.T) {
	l := listen(t)
	s := start(t, kept(t, l), echo)
	var stop atomic.Bool
	var asked, dialled atomic.Int64
	var clients sync.WaitGroup
	for i := 0; i < 8; i++ {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled.Add(1)
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		}}
		think := time.Duration(i%2) * time.Millisecond
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := 0; !stop.Load() && !t.Failed(); n++ {
				want := fmt.Sprint("request ", n)
				reply, err := client.Post("http://"+l.Addr().String(), "text/plain", strings.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(reply.Body)
				reply.Body.Close()
				if err != nil || string(text) != want || reply.Close {
					t.Error(string(text), err, reply.Close)
				}
				asked.Add(1)
				time.Sleep(think)
			}
		}()
	}
	for i := 0; i < 30 && !t.Failed(); i++ {
		for before := asked.Load(); asked.Load() < before+20 && !t.Failed(); {
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
	if dialled.Load() != 8 {
		t.Errorf("8 clients have connected %d times", dialled.Load())
	}
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
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client.SetDeadline(time.Now().Add(patience))
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
		replies := bufio.NewReader(client)
		for _, want := range []string{"/first", body, "/third"} {
			reply, err := http.ReadResponse(replies, nil)
			if err != nil {
				t.Fatalf("cut at %d, %s: %v", cut, want, err)
			}
			got, err := io.ReadAll(reply.Body)
			if err != nil || string(got) != want || reply.Close {
				t.Fatalf("cut at %d: %q instead of %q, %v, close %t", cut, got, want, err, reply.Close)
			}
		}
		reply, err := http.ReadResponse(replies, &http.Request{Method: "HEAD"})
		if err != nil || reply.StatusCode != http.StatusOK || replies.Buffered() > 0 {
			t.Fatal(cut, reply, err, replies.Buffered())
		}
		client.Close()
	}
}
