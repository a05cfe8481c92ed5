package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const patience = 60 * time.Second

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// kept is a listener on the same socket, which stays open when it is closed: as one that was inherited. The file of TCPListener.File
// would make the socket blocking, for the other listeners, too, while FileListener asks for its descriptor: an accept in that moment never ends.
func kept(t *testing.T, l *net.TCPListener) net.Listener {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd uintptr
	var errno syscall.Errno
	if err := raw.Control(func(original uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, original, syscall.F_DUPFD_CLOEXEC, 0)
	}); err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	file := os.NewFile(fd, "kept")
	defer file.Close()
	other, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func start(t *testing.T, l net.Listener, handler http.Handler) *Server {
	s := New(&http.Server{Handler: handler})
	go func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	return s
}

func get(client *http.Client, address net.Addr) (*http.Response, error) {
	reply, err := client.Get("http://" + address.String())
	if err == nil {
		_, err = io.ReadAll(reply.Body)
		reply.Body.Close()
	}
	return reply, err
}

// Each client has a connection of its own for each request, or one until it is told otherwise. POST is not repeated by itself.
func TestNoRequestIsLost(t *testing.T) {
	l := listen(t)
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	s := start(t, kept(t, l), ok)
	var stop atomic.Bool
	var asked, told atomic.Int64
	var clients sync.WaitGroup
	for i := 0; i < 8; i++ {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}, Timeout: patience}
		clients.Add(1)
		go func() {
			defer clients.Done()
			for !stop.Load() {
				reply, err := client.Post("http://"+l.Addr().String(), "text/plain", nil)
				if err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
				if reply.Close {
					told.Add(1)
				}
				io.Copy(io.Discard, reply.Body)
				reply.Body.Close()
			}
		}()
	}
	for i := 0; i < 10 && !t.Failed(); i++ {
		for before := asked.Load(); asked.Load() < before+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		if err := s.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		s = start(t, kept(t, l), ok)
	}
	stop.Store(true)
	clients.Wait()
	if told.Load() == 0 {
		t.Error("nobody was told to hang up")
	}
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestARequestUnderWayIsAnsweredAndTheClientTold(t *testing.T) {
	l := listen(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	s := start(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		io.WriteString(w, "ok")
	}))
	answered := make(chan error)
	go func() {
		reply, err := get(&http.Client{Timeout: patience}, l.Addr())
		if err == nil && !reply.Close {
			err = errors.New("not told to hang up")
		}
		answered <- err
	}()
	<-begun
	late, cancel := context.WithTimeout(context.Background(), 2*goodbye)
	defer cancel()
	if err := s.Drain(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(finish)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A client that says nothing keeps nobody waiting for long, and what it held is closed.
func TestSilentClients(t *testing.T) {
	l := listen(t)
	s := start(t, l, http.NotFoundHandler())
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	idle := &http.Client{Transport: &http.Transport{}}
	if _, err := get(idle, l.Addr()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestDrainBeforeServe(t *testing.T) {
	s := New(&http.Server{})
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(listen(t)); err != nil {
		t.Error(err)
	}
}
