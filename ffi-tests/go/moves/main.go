// Command moves gives its successor state and connections of every kind, and the successor looks at all of it.
//
//	CHECK  ->  GOOD <pid> <open descriptors>, or BAD and why      PING  ->  PONG <pid> moves
//
// A client that says HOLD gets HELD, and is moved, too. MOVES_FAULT=unhealthy: is ready, and says that it is not well.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"handoff"
)

type daemon struct {
	h   *handoff.Handoff
	kit *kit

	mu       sync.Mutex
	listener net.Listener
	held     net.Conn // nobody reads from it while it moves
}

func main() {
	log.SetFlags(0)
	dir := os.Getenv("HANDOFF_DATA_DIR")
	h, err := handoff.Open()
	check(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	d := &daemon{h: h}
	h.OnDrain(d.drain)
	h.OnSeal(func(ctx context.Context) ([]uint64, error) { return nil, handoff.PutState(ctx, "in the seal", nil) })
	h.OnResume(func(context.Context) error { return d.serve() })
	_, early := h.State("blob")
	check(expect(early, handoff.ErrState))
	check(h.WaitForBegin(ctx))
	if h.IsSuccessor() {
		d.kit, err = takeState(h)
	} else {
		d.kit, err = newKit(h, dir)
	}
	check(err)
	_, early = h.Connections()
	check(expect(early, handoff.ErrState))
	check(h.Ready(ctx, handoff.Readiness{Unhealthy: os.Getenv("MOVES_FAULT") != "", Detail: "told to be unhealthy"}))
	d.held, err = d.kit.takeConnections(h)
	check(err)
	check(d.serve())
	end, err := h.Serve(ctx)
	check(err)
	if end == handoff.Replaced {
		os.Exit(0)
	}
	check(h.Close())
}

// serve accepts, and goes on with the client that is held.
func (d *daemon) serve() error {
	listener, err := d.h.Listener("kv")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener = listener
	if d.held != nil {
		go d.answer(d.held)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go d.answer(conn)
		}
	}()
	return nil
}

func (d *daemon) drain(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener.Close()
	return d.kit.put(ctx, d.held)
}

// answer answers until the client hangs up, or is held.
func (d *daemon) answer(conn net.Conn) {
	for in := bufio.NewScanner(conn); in.Scan(); {
		switch in.Text() {
		case "HOLD":
			d.mu.Lock()
			d.held = conn
			d.mu.Unlock()
			fmt.Fprintln(conn, "HELD")
			return
		case "CHECK":
			fmt.Fprintln(conn, d.check())
			if d.isHeld(conn) {
				return // it asks once in each process
			}
		case "PING":
			fmt.Fprintln(conn, "PONG", os.Getpid(), "moves")
		}
	}
	conn.Close()
}

func (d *daemon) isHeld(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held == conn
}

func (d *daemon) check() string {
	if err := d.kit.check(); err != nil {
		return "BAD " + err.Error()
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return "BAD " + err.Error()
	}
	return fmt.Sprint("GOOD ", os.Getpid(), " ", len(open))
}

func expect(err error, code handoff.Code) error {
	if errors.Is(err, code) {
		return nil
	}
	return fmt.Errorf("%v instead of %w", err, code)
}

func check(err error) {
	if err != nil {
		log.Fatal("moves: ", err)
	}
}
