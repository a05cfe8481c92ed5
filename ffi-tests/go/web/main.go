// Command web is a server of package web for the tests: it answers "<build> <pid>". It serves the listener "kv".
//
//	WEB_MODE=overlap   it is in overlap mode
//	WEB_INIT=FILE      it initialises until there is this file
//	WEB_FAULT=fleeting commits, serves until one reply was given, and dies of SIGKILL, before it has said that it serves
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"handoff"
	"handoff/web"
)

// Set by -ldflags "-X main.build=NAME".
var build = "dev"

type daemon struct {
	h      *handoff.Handoff
	server *web.Server
}

func main() {
	log.SetFlags(0)
	options := []handoff.Option{handoff.BuildID(build)}
	if os.Getenv("WEB_MODE") == "overlap" {
		options = append(options, handoff.Overlap())
	}
	h, err := handoff.Open(options...)
	check(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	d := &daemon{h, web.New(server)}
	check(h.OnDrain(d.drain))
	check(h.OnSeal(func(context.Context) ([]uint64, error) { return nil, nil }))
	check(h.OnResume(func(context.Context) error { return d.serve() }))
	check(h.WaitForBegin(ctx))
	initialise()
	check(h.Ready(ctx, handoff.Readiness{}))
	moved, err := h.Connections()
	check(err)
	if fleeting() {
		server.ConnState = dieIdle(server.ConnState)
	}
	check(d.serve(moved...))
	if fleeting() {
		log.Print("web: committed")
		select {}
	}
	end, err := h.Serve(ctx)
	check(err)
	if end == handoff.Replaced {
		os.Exit(0)
	}
	check(d.server.Drain(context.Background()))
	check(h.Close())
}

func initialise() {
	log.Print("web: begun")
	for path := os.Getenv("WEB_INIT"); path != ""; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			check(err)
			return
		}
	}
}

func (d *daemon) serve(moved ...*handoff.Connection) error {
	listener, err := d.h.Listener("kv")
	if err == nil {
		go func() { check(d.server.Serve(listener, moved...)) }()
	}
	return err
}

func (d *daemon) drain(ctx context.Context) error {
	if handoff.AfterCommit(ctx) {
		return d.server.Drain(ctx)
	}
	return d.server.Move(ctx)
}

func fleeting() bool { return os.Getenv("WEB_FAULT") == "fleeting" }

// dieIdle dies when an answer is on the wire.
func dieIdle(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(conn net.Conn, state http.ConnState) {
		next(conn, state)
		if state == http.StateIdle {
			check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		}
	}
}

func answer(reply http.ResponseWriter, _ *http.Request) { fmt.Fprintln(reply, build, os.Getpid()) }

func check(err error) {
	if err != nil {
		log.Fatal("web: ", err)
	}
}
