package handoff

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestAColdStartHasNothing(t *testing.T) {
	h := open(t, DataDir(t.TempDir()))
	_, err := h.State("x")
	expect(t, err, ErrState)
	if err := h.WaitForBegin(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err = h.State("x")
	expect(t, err, ErrNoName)
	_, err = h.TakeStateFile("x")
	expect(t, err, ErrNoName)
	_, err = h.State("a\x00b")
	expect(t, err, ErrInvalid)
	_, err = h.Connections()
	expect(t, err, ErrState)
	if err := h.Ready(context.Background(), Readiness{}); err != nil {
		t.Fatal(err)
	}
	if connections, err := h.Connections(); len(connections) != 0 || err != nil {
		t.Error(connections, err)
	}
	h.Close()
	_, err = h.Connections()
	expect(t, err, ErrState)
	_, err = h.TakeStateFile("x")
	expect(t, err, ErrState)
}

func TestPutWantsTheContextOfAHook(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	put := func(ctx context.Context) []error {
		return []error{PutConnection(ctx, "x", r, nil), PutState(ctx, "x", nil), PutStateFile(ctx, "x", file)}
	}
	for _, err := range put(context.Background()) {
		expect(t, err, ErrInvalid)
	}
	// An event that is over.
	h := serving(t)
	late := context.WithValue(context.Background(), eventKey{}, openEvent{h, 77, false})
	for _, err := range put(late) {
		if !errors.Is(err, ErrStale) && !errors.Is(err, ErrState) {
			t.Error(err)
		}
	}
	r.Close()
	if err := PutConnection(late, "x", r, nil); err == nil {
		t.Error("a file that is closed was given")
	}
	expect(t, PutConnection(late, "a\x00b", w, nil), ErrInvalid)
}

// What comes from C is a plain descriptor: as net.Conn it has deadlines, and nothing else stays open.
func TestOpenConnection(t *testing.T) {
	l, _ := given(t, "tcp", "127.0.0.1:0")
	client, server := connect(t, l)
	defer client.Close()
	defer server.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	before := openDescriptors(t)
	for i := 0; i < 20; i++ {
		fd := duplicateOf(t, server.(syscall.Conn))
		if err := syscall.SetNonblock(fd, i%2 == 0); err != nil { // a process in C may have it blocking
			t.Fatal(err)
		}
		conn, file := openConnection(fd, "x")
		if _, ok := conn.(*net.TCPConn); !ok || file != nil {
			t.Fatalf("%T %v", conn, file)
		}
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		conn.Close()
	}
	conn, file := openConnection(duplicateOf(t, r), "x")
	if conn != nil || file == nil {
		t.Fatal(conn, file)
	}
	file.Close()
	if now := openDescriptors(t); now > before+5 { // the runtime has some of its own
		t.Errorf("%d descriptors, %d before", now, before)
	}
}
