package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"handoff"
)

const (
	fileBytes  = 1 << 20
	blobBytes  = 100 << 10
	stateBytes = 60 << 10 // the most that a connection may have
)

// A kit is what is moved: a pair of Unix sockets, a socket for datagrams, a pipe, a file.
type kit struct {
	left, right, datagrams net.Conn
	read, write            *os.File
	file                   *os.File
	inode                  uint64
}

func pattern(size int) []byte { return bytes.Repeat([]byte("0123456789abcde\n"), size/16) }

func newKit(h *handoff.Handoff, dir string) (*kit, error) {
	_, noState := h.State("blob")
	_, noFile := h.TakeStateFile("file")
	k := &kit{}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	err = errors.Join(err, expect(noState, handoff.ErrNoName), expect(noFile, handoff.ErrNoName))
	for i, side := range []*net.Conn{&k.left, &k.right} {
		end := os.NewFile(uintptr(pair[i]), "pair")
		conn, endErr := net.FileConn(end)
		*side, err = conn, errors.Join(err, endErr, end.Close())
	}
	udp, udpErr := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	k.datagrams = udp
	var pipeErr, fileErr, writeErr error
	k.read, k.write, pipeErr = os.Pipe()
	k.file, fileErr = os.Create(filepath.Join(dir, "file"))
	_, writeErr = k.file.Write(pattern(fileBytes))
	k.inode, fileErr = inode(k.file)
	return k, errors.Join(err, udpErr, pipeErr, fileErr, writeErr)
}

func inode(file *os.File) (uint64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// put gives all of it, and what can not be given is refused.
func (k *kit) put(ctx context.Context, held net.Conn) error {
	var slices struct { // with pointers beside the bytes, which is none of C's business
		here *kit
		blob [blobBytes]byte
	}
	slices.here = k
	copy(slices.blob[:], pattern(blobBytes))
	err := errors.Join(
		handoff.PutState(ctx, "blob", slices.blob[:]),
		handoff.PutState(ctx, "empty", nil),
		handoff.PutState(ctx, "inode", []byte(fmt.Sprint(k.inode))),
		handoff.PutStateFile(ctx, "file", k.file),
		handoff.PutConnection(ctx, "left", k.left.(syscall.Conn), pattern(stateBytes)),
		handoff.PutConnection(ctx, "right", k.right.(syscall.Conn), nil),
		handoff.PutConnection(ctx, "datagrams", k.datagrams.(syscall.Conn), nil),
		handoff.PutConnection(ctx, "read", k.read, nil),
		handoff.PutConnection(ctx, "write", k.write, []byte{0}),
		expect(handoff.PutState(ctx, "blob", nil), handoff.ErrDuplicate),
		expect(handoff.PutState(ctx, "", nil), handoff.ErrInvalid),
		expect(handoff.PutState(ctx, "a\x00b", nil), handoff.ErrInvalid),
		expect(handoff.PutState(context.Background(), "x", nil), handoff.ErrInvalid),
		expect(handoff.PutStateFile(ctx, "x", k.read), handoff.ErrInvalid),
		expect(handoff.PutConnection(ctx, "left", k.left.(syscall.Conn), nil), handoff.ErrDuplicate),
	)
	if held != nil {
		big := expect(handoff.PutConnection(ctx, "held", held.(syscall.Conn), pattern(stateBytes+16)), handoff.ErrTooBig)
		err = errors.Join(err, big, handoff.PutConnection(ctx, "held", held.(syscall.Conn), []byte("state of held")))
	}
	return err
}

// takeState looks at what is there before the commit.
func takeState(h *handoff.Handoff) (*kit, error) {
	k := &kit{}
	blob, err := h.State("blob")
	empty, emptyErr := h.State("empty")
	number, numberErr := h.State("inode")
	_, sealErr := h.State("in the seal")
	_, unknown := h.State("none")
	_, isFile := h.State("file")
	file, fileErr := h.TakeStateFile("file")
	_, twice := h.TakeStateFile("file")
	sealed, sealedErr := h.TakeStateFile("blob")
	err = errors.Join(err, emptyErr, numberErr, sealErr, fileErr, sealedErr, expect(unknown, handoff.ErrNoName),
		expect(isFile, handoff.ErrInvalid), expect(twice, handoff.ErrNoName))
	if err != nil {
		return nil, err
	}
	defer sealed.Close()
	copied, err := io.ReadAll(io.NewSectionReader(sealed, 0, blobBytes))
	if err != nil || !bytes.Equal(blob, pattern(blobBytes)) || !bytes.Equal(copied, blob) || len(empty) != 0 {
		return nil, fmt.Errorf("the state is not what was given: %d, %d, %d bytes, %v", len(blob), len(copied), len(empty), err)
	}
	k.file = file
	k.inode, err = inode(file)
	if err == nil && string(number) != fmt.Sprint(k.inode) {
		err = fmt.Errorf("the file is inode %d instead of %s", k.inode, number)
	}
	return k, err
}

// takeConnections gives the client that is held, too.
func (k *kit) takeConnections(h *handoff.Handoff) (net.Conn, error) {
	connections, err := h.Connections()
	if err != nil || !h.IsSuccessor() {
		return nil, errors.Join(err, none(connections))
	}
	again, err := h.Connections()
	if err = errors.Join(err, none(again)); err != nil {
		return nil, err
	}
	var held net.Conn
	for i, name := range []string{"left", "right", "datagrams", "read", "write", "held"}[:len(connections)] {
		c := connections[i]
		want := map[string]string{"left": string(pattern(stateBytes)), "write": "\x00", "held": "state of held"}[name]
		if c.Name != name || string(c.State) != want || (c.Conn == nil) == (c.File == nil) {
			return nil, fmt.Errorf("%s instead of %s, with %d bytes of state, %T, %T", c.Name, name, len(c.State), c.Conn, c.File)
		}
		switch name {
		case "left":
			k.left = c.Conn
		case "right":
			k.right = c.Conn
		case "datagrams":
			k.datagrams = c.Conn
		case "read":
			k.read = c.File
		case "write":
			k.write = c.File
		case "held":
			held = c.Conn
		}
	}
	return held, nil
}

func none(connections []*handoff.Connection) error {
	if len(connections) > 0 {
		return fmt.Errorf("%d connections that nobody gave", len(connections))
	}
	return nil
}

// check uses all of it.
func (k *kit) check() error {
	content, err := io.ReadAll(io.NewSectionReader(k.file, 0, fileBytes+1))
	if err != nil || !bytes.Equal(content, pattern(fileBytes)) {
		return fmt.Errorf("the file has %d bytes, %v", len(content), err)
	}
	udp, ok := k.datagrams.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("a %T for datagrams", k.datagrams)
	}
	if _, err := udp.WriteTo([]byte("datagram\n"), udp.LocalAddr()); err != nil {
		return err
	}
	return errors.Join(
		heard("datagram\n", udp),
		said("to the right\n", k.left, k.right),
		said("to the left\n", k.right, k.left),
		said("through the pipe\n", k.write, k.read),
	)
}

type reader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

func said(text string, from io.Writer, to reader) error {
	if _, err := io.WriteString(from, text); err != nil {
		return err
	}
	return heard(text, to)
}

// heard reads the text, and finds nothing behind it: deadlines work.
func heard(text string, in reader) error {
	in.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(in, buf); err != nil || string(buf) != text {
		return fmt.Errorf("%q instead of %q, %v", buf, text, err)
	}
	in.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := in.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%d more bytes after %q, %v", n, text, err)
	}
	return nil
}
