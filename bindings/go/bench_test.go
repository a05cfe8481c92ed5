package handoff

import (
	"context"
	"net"
	"syscall"
	"testing"
)

func benchmarked(b *testing.B) *Handoff {
	h, err := Open(DataDir(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close() })
	if err := h.WaitForBegin(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := h.Ready(context.Background(), Readiness{}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	return h
}

// A call into C and back.
func BenchmarkPhase(b *testing.B) {
	h := benchmarked(b)
	for i := 0; i < b.N; i++ {
		h.Phase()
	}
}

// Both sides of the fence, which every write passes.
func BenchmarkFence(b *testing.B) {
	h := benchmarked(b)
	for i := 0; i < b.N; i++ {
		if h.WriteBegin() != nil || h.WriteEnd() != nil {
			b.Fatal("sealed")
		}
	}
}

// From a descriptor that becomes readable until the goroutine that waits for it in the poller, as Serve does, runs; and the way back.
func BenchmarkWait(b *testing.B) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		b.Fatal(err)
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	w, err := newWaiter(fds[0])
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	turn, byte1 := make(chan struct{}), make([]byte, 1)
	go func() {
		for range turn {
			syscall.Write(fds[1], byte1)
		}
	}()
	for i := 0; i < b.N; i++ {
		turn <- struct{}{}
		if err := w.readable(); err != nil {
			b.Fatal(err)
		}
		syscall.Read(fds[0], byte1)
	}
	close(turn)
}

// A connection: from connect to close, with the binding's Accept and with that of package net.
func BenchmarkAccept(b *testing.B) {
	original, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer original.Close()
	raw, err := original.(syscall.Conn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	fd := -1
	raw.Control(func(of uintptr) { fd, err = duplicate(int(of)) })
	if err != nil {
		b.Fatal(err)
	}
	ours, err := newListener(fd, "x")
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	for name, l := range map[string]net.Listener{"handoff": ours, "net": original} {
		b.Run(name, func(b *testing.B) {
			for i := 0; i < b.N; i++ {
				client, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				server, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				client.(*net.TCPConn).SetLinger(0)
				client.Close()
				server.Close()
			}
		})
	}
}
