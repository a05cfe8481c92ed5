package handoff_test

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"handoff"
)

// A daemon with data: it closes its writers at the seal, and says at which revision.
func Example() {
	h, err := handoff.Open(handoff.BuildID("1.4.2"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var store *store
	h.OnDrain(func(ctx context.Context) error { return store.finishRequests(ctx) })
	h.OnSeal(func(context.Context) ([]uint64, error) {
		revision, err := store.close()
		return []uint64{revision}, err
	})
	h.OnResume(func(context.Context) error { return store.reopen() })
	if err := h.WaitForBegin(ctx); err != nil {
		log.Fatal(err)
	}
	store = openStore()
	if err := h.Ready(ctx, handoff.Readiness{Revisions: []uint64{store.revision}}); err != nil {
		log.Fatal(err)
	}
	end, err := h.Serve(ctx)
	switch {
	case err != nil:
		log.Fatal(err)
	case end == handoff.Replaced:
		os.Exit(0)
	}
}

// Without a supervisor a daemon binds its own socket.
func ExampleHandoff_Listener() {
	h, err := handoff.Open()
	if err != nil {
		log.Fatal(err)
	}
	listener, err := h.Listener("http")
	if errors.Is(err, handoff.ErrNotGiven) {
		listener, err = net.Listen("tcp", "127.0.0.1:8080")
	}
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
}

// A drain that would rather leave some clients unserved than be undone.
func ExampleHandoff_OnDrain() {
	h, err := handoff.Open()
	if err != nil {
		log.Fatal(err)
	}
	h.OnDrain(func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); ok {
			early, cancel := context.WithDeadline(ctx, deadline.Add(-100*time.Millisecond))
			defer cancel()
			ctx = early
		}
		_ = openStore().finishRequests(ctx)
		return nil
	})
}

// Each write passes the fence; what comes after the seal is not executed.
func ExampleHandoff_WriteBegin() {
	var h *handoff.Handoff
	write := func(line string) error {
		if err := h.WriteBegin(); err != nil {
			return err // tell the client to connect again
		}
		defer h.WriteEnd()
		return openStore().append(line)
	}
	_ = write
}

// The drain gives the clients to the successor, each with what was read of it and not executed.
func ExamplePutConnection() {
	var h *handoff.Handoff
	var idle map[*net.TCPConn][]byte // nobody reads from these any more
	h.OnDrain(func(ctx context.Context) error {
		for client, unread := range idle {
			if err := handoff.PutConnection(ctx, "client", client, unread); err != nil {
				return err // undone: the resume goes on with all of them
			}
		}
		return nil
	})
}

// The successor has the clients behind the commit, and the state before it.
func ExampleHandoff_Connections() {
	var h *handoff.Handoff
	var ctx context.Context
	serve := func(client net.Conn, unread []byte) {}
	if err := h.WaitForBegin(ctx); err != nil {
		log.Fatal(err)
	}
	sessions, err := h.State("sessions")
	if err != nil && !errors.Is(err, handoff.ErrNoName) { // a cold start has none
		log.Fatal(err)
	}
	if err := h.Ready(ctx, handoff.Readiness{Detail: string(sessions)}); err != nil {
		log.Fatal(err)
	}
	clients, err := h.Connections()
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range clients {
		go serve(c.Conn, c.State)
	}
}

type store struct{ revision uint64 }

func openStore() *store                               { return &store{} }
func (s *store) finishRequests(context.Context) error { return nil }
func (s *store) close() (uint64, error)               { return s.revision, nil }
func (s *store) reopen() error                        { return nil }
func (s *store) append(string) error                  { return nil }
