package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// duplicateOf gives a descriptor of the same description, as the library does, and changes no flag.
func duplicateOf(t *testing.T, conn syscall.Conn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := errors.Join(raw.Control(func(original uintptr) { fd, err = duplicate(int(original)) }), err); err != nil {
		t.Fatal(err)
	}
	return fd
}

// given is a listener as from the library, on a socket that stays open beside it.
func given(t *testing.T, network, address string) (*listener, net.Listener) {
	t.Helper()
	original, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { original.Close() })
	l, err := newListener(duplicateOf(t, original.(syscall.Conn)), "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, original
}

// connect gives both ends of a connection through l.
func connect(t *testing.T, l net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestListenerServesHTTP(t *testing.T) {
	l, original := given(t, "tcp", "127.0.0.1:0")
	if l.Addr().String() != original.Addr().String() || l.Addr().Network() != "tcp" {
		t.Fatal(l.Addr())
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(l); err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	for i := 0; i < 20; i++ {
		reply, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if err != nil || string(text) != "hello" {
			t.Fatal(string(text), err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of Serve", served)
}

func TestConnectionsAreRealOnes(t *testing.T) {
	l, _ := given(t, "tcp", "127.0.0.1:0")
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	tcp, ok := server.(*net.TCPConn)
	if !ok || tcp.RemoteAddr().String() != client.LocalAddr().String() || tcp.LocalAddr().String() != l.Addr().String() {
		t.Fatalf("%T from %v", server, server.RemoteAddr())
	}
	fd := duplicateOf(t, tcp)
	defer syscall.Close(fd)
	if on, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY); err != nil || on != 1 {
		t.Error("no TCP_NODELAY", err)
	}
	if flags(fd)&syscall.O_NONBLOCK == 0 {
		t.Error("the connection blocks")
	}
	tcp.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := tcp.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestCloseWakesAccept(t *testing.T) {
	l, _ := given(t, "tcp", "127.0.0.1:0")
	ended := make(chan struct{})
	for i := 0; i < 3; i++ {
		go func() {
			defer func() { ended <- struct{}{} }()
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}()
	}
	time.Sleep(10 * time.Millisecond) // so that most likely they wait
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 3; i++ {
		await(t, "the end of Accept", ended)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestDeadlineWakesAccept(t *testing.T) {
	l, _ := given(t, "tcp", "[::1]:0")
	l.SetDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := l.Accept()
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatal(err)
	}
	l.SetDeadline(time.Time{})
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
}

func TestUnixPathStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, original := given(t, "unix", path)
	original.(*net.UnixListener).SetUnlinkOnClose(false)
	if l.Addr().String() != path || l.Addr().Network() != "unix" {
		t.Fatal(l.Addr())
	}
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := server.(*net.UnixConn); !ok {
		t.Errorf("%T", server)
	}
	server.Close()
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// Out of descriptors is an error that http.Server waits out.
func TestNoDescriptorsIsTemporary(t *testing.T) {
	l, _ := given(t, "tcp", "127.0.0.1:0")
	err := l.failed("accept", os.NewSyscallError("accept4", syscall.EMFILE))
	var temporary interface{ Temporary() bool }
	if !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Fatal(err)
	}
}

func TestOnlyListenersListen(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	fd := duplicateOf(t, socket.(*net.UDPConn))
	defer syscall.Close(fd)
	_, err = newListener(fd, "x")
	expect(t, err, ErrInvalid)
}

func flags(fd int) uintptr {
	flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	return flags
}

// sample looks at the flags of a description without end, while do runs; how often it was seen blocking.
func sample(fd int, do func()) (blocking, samples int) {
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; !stop.Load(); samples++ {
			if flags(fd)&syscall.O_NONBLOCK == 0 {
				blocking++
			}
		}
	}()
	do()
	stop.Store(true)
	<-ended
	return blocking, samples
}

const rounds = 2000

// Another process that accepts on the same socket would hang, if it were blocking for a moment.
func TestListenerNeverBlocksTheSharedSocket(t *testing.T) {
	original, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer original.Close()
	other := duplicateOf(t, original.(*net.TCPListener))
	defer syscall.Close(other)
	blocking, samples := sample(other, func() {
		for i := 0; i < rounds; i++ {
			l, err := newListener(duplicateOf(t, original.(*net.TCPListener)), "x")
			if err != nil {
				t.Fatal(err)
			}
			client, server := connect(t, l)
			// The client first: its port may be used again at once.
			client.(*net.TCPConn).SetLinger(0)
			client.Close()
			server.Close()
			l.SetDeadline(longAgo)
			l.Accept()
			l.Close()
		}
	})
	if blocking != 0 || samples < rounds {
		t.Errorf("%d of %d samples were blocking", blocking, samples)
	}
}

func TestPacketConnNeverBlocksTheSharedSocket(t *testing.T) {
	if fd := os.Getenv("TEST_PACKETS"); fd == "" {
		runWithSockets(t, "TestPacketConnNeverBlocksTheSharedSocket", "TEST_PACKETS")
		return
	}
	h := open(t)
	_, err := h.Listener("packets")
	expect(t, err, ErrInvalid)
	_, err = h.Listener("none")
	expect(t, err, ErrNoName)
	other, err := h.take("packets")
	if err != nil {
		t.Fatal(err)
	}
	blocking, samples := sample(other, func() {
		for i := 0; i < rounds; i++ {
			conn, err := h.PacketConn("packets")
			if err != nil {
				t.Fatal(err)
			}
			udp := conn.(*net.UDPConn)
			if _, err := udp.WriteTo([]byte(fmt.Sprint(i)), udp.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			text := make([]byte, 16)
			n, _, err := udp.ReadFrom(text)
			if err != nil || string(text[:n]) != fmt.Sprint(i) {
				t.Fatal(string(text[:n]), err)
			}
			udp.SetReadDeadline(longAgo)
			udp.ReadFrom(text)
			udp.Close()
		}
	})
	if blocking != 0 || samples < rounds {
		t.Errorf("%d of %d samples were blocking", blocking, samples)
	}
}

// The sampler sees what it is for: this is what the package does not do.
func TestSamplerSeesABlockingMoment(t *testing.T) {
	original, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer original.Close()
	other := duplicateOf(t, original.(*net.TCPListener))
	defer syscall.Close(other)
	file, err := original.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	blocking, samples := sample(other, func() {
		file.Fd()
		time.Sleep(10 * time.Millisecond)
	})
	if blocking == 0 {
		t.Errorf("none of %d samples was blocking", samples)
	}
}

// runWithSockets runs this test again, in a process that was given sockets as by systemd: descriptors have fixed numbers, and the
// Go runtime has its own open before main begins.
func runWithSockets(t *testing.T, test, variable string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer streams.Close()
	child := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.v -test.run "^$1$"`, os.Args[0], test)
	for _, socket := range []syscall.Conn{packets.(*net.UDPConn), streams.(*net.TCPListener)} {
		file := os.NewFile(uintptr(duplicateOf(t, socket)), "socket")
		defer file.Close()
		child.ExtraFiles = append(child.ExtraFiles, file)
	}
	// A standard input that does not block makes the runtime open its poller at once.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	child.Stdin = os.NewFile(uintptr(duplicateOf(t, r)), "input")
	child.Env = append(os.Environ(), variable+"=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=packets.socket:streams")
	output, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+test) {
		t.Fatalf("%v\n%s", err, output)
	}
}

func TestGivenListeners(t *testing.T) {
	if os.Getenv("TEST_STREAMS") == "" {
		runWithSockets(t, "TestGivenListeners", "TEST_STREAMS")
		return
	}
	h := open(t)
	for i := 0; i < 3; i++ { // again and again, as after a resume
		l, err := h.Listener("streams")
		if err != nil {
			t.Fatal(err)
		}
		client, server := connect(t, l)
		client.Close()
		server.Close()
		l.Close()
	}
	blocking, err := h.take("streams")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(blocking, false); err != nil {
		t.Fatal(err)
	}
	_, err = h.Listener("streams")
	if e := expect(t, err, ErrInvalid); !strings.Contains(e.Detail, ",blocking") {
		t.Error(e)
	}
}
