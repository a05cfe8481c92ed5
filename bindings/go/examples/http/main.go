// Command http is a web server that is replaced without a failed request, and without an end of the connections that clients keep:
//
//	go build -o http ./examples/http
//	handoff run --name http --listen http=127.0.0.1:8080 -- ./http
//	handoff upgrade --name http
//
// It answers "<build> <pid>"; with ?ms=N it says "wait" first, and the rest N milliseconds later.
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
	"strconv"
	"syscall"
	"time"

	"handoff"
	"handoff/web"
)

// Set by -ldflags "-X main.build=NAME".
var build = "dev"

// For the last requests after SIGTERM, and for a client to send its headers.
const patience = 5 * time.Second

type daemon struct {
	h      *handoff.Handoff
	server *web.Server
}

func main() {
	h, err := handoff.Open(handoff.BuildID(build)) // first of all
	check(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	d := &daemon{h, web.New(&http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: patience})}
	check(h.OnDrain(d.server.Move))
	check(h.OnSeal(func(context.Context) ([]uint64, error) { return nil, nil })) // there is no data to close
	check(h.OnResume(d.resume))
	listener, err := d.listen()
	check(err)
	check(h.WaitForBegin(ctx))
	// With WEB_FAULT it is a bad new version, to see it undone.
	why := os.Getenv("WEB_FAULT")
	check(h.Ready(ctx, handoff.Readiness{Unhealthy: why != "", Detail: why}))
	moved, err := h.Connections()
	check(err)
	d.serve(listener, moved...)
	end, err := h.Serve(ctx)
	check(err)
	if end == handoff.Replaced {
		os.Exit(0)
	}
	last, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	check(d.server.Drain(last))
	check(h.Close())
}

// listen takes the listener that was given, or, without a supervisor, one of our own.
func (d *daemon) listen() (net.Listener, error) {
	listener, err := d.h.Listener("http")
	if errors.Is(err, handoff.ErrNotGiven) {
		return net.Listen("tcp", "127.0.0.1:8080")
	}
	return listener, err
}

func (d *daemon) serve(listener net.Listener, moved ...*handoff.Connection) {
	go func() { check(d.server.Serve(listener, moved...)) }()
}

// resume goes on with the connections that the drain has put aside.
func (d *daemon) resume(context.Context) error {
	listener, err := d.listen()
	if err == nil {
		d.serve(listener)
	}
	return err
}

func answer(reply http.ResponseWriter, request *http.Request) {
	if ms, err := strconv.Atoi(request.FormValue("ms")); err == nil {
		fmt.Fprintln(reply, "wait")
		_ = http.NewResponseController(reply).Flush() // it can only fail if the client has gone
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	fmt.Fprintf(reply, "%s %d\n", build, os.Getpid())
}

func check(err error) {
	if err != nil {
		log.Fatal("http: ", err)
	}
}
