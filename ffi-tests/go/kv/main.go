// Command kv is the store of examples-c/kv.c in Go: the same requests, the same log, the same way of moving connections, the
// same rules for their end. See there.
//
//	kv [DATA_DIR]   default: $HANDOFF_DATA_DIR
//
// KV_FAULT names a fault:
//
//	unhealthy     is ready, and says that it is not well
//	crash         dies between begin and ready
//	lost-write    says that it opened one revision less than there is
//	drain-fails   answers the first drain with a failure
//	drain-waits   answers the first drain when its context ends, and says why that ended
//	logs          writes the whole log of the library to standard error
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"handoff"
)

// Set by -ldflags "-X main.build=NAME".
var build = "dev"

func main() {
	end, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		os.Exit(1)
	}
	if end == handoff.Replaced {
		os.Exit(0) // nothing may be flushed: the data is not ours
	}
}

func run() (handoff.End, error) {
	dir := os.Getenv("HANDOFF_DATA_DIR") // Open consumes it
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if dir == "" {
		return 0, fmt.Errorf("usage: kv [DATA_DIR], or HANDOFF_DATA_DIR=DATA_DIR kv")
	}
	os.Mkdir(dir, 0o755) // if that fails, and matters, Open says so
	level := slog.LevelWarn
	if fault() == "logs" {
		level = slog.LevelDebug - 4
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	h, err := handoff.Open(handoff.DataDir(dir), handoff.BuildID(build), handoff.Logger(logger))
	if err != nil {
		return 0, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	store := newStore(dir)
	s := &server{h: h, store: store, clients: make(map[*client]struct{})}
	drains := 0
	h.OnDrain(func(ctx context.Context) error {
		if drains++; drains == 1 {
			if err := faultyDrain(ctx); err != nil {
				return err
			}
		}
		if deadline, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
			defer cancel()
		}
		return s.move(ctx)
	})
	h.OnSeal(func(context.Context) ([]uint64, error) {
		revision, err := store.close()
		return []uint64{revision}, err
	})
	h.OnResume(func(ctx context.Context) error {
		if handoff.AfterCommit(ctx) {
			s.lose()
		}
		if err := store.open(); err != nil {
			return err
		}
		s.resume()
		if s.listener != nil {
			return nil
		}
		return s.start()
	})

	h.OnParked(s.lose)
	h.OnConfirmed(func() { fmt.Fprintf(os.Stderr, "kv: %s is confirmed\n", build) })
	if err := begin(ctx, h, store); err != nil {
		return 0, err
	}
	if err := s.take(); err != nil {
		return 0, err
	}
	if err := s.start(); err != nil {
		return 0, err
	}
	if end, err := h.Serve(ctx); err != nil || end == handoff.Replaced {
		return end, err
	}
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.stop(last)
	if _, err := store.close(); err != nil {
		return 0, err
	}
	return handoff.Stopped, h.Close()
}

func fault() string { return os.Getenv("KV_FAULT") }

func faultyDrain(ctx context.Context) error {
	switch fault() {
	case "drain-fails":
		return errors.New("told to fail the drain")
	case "drain-waits":
		if err := handoff.Progress(ctx, 1, 2); err != nil {
			return err
		}
		<-ctx.Done()
		_, late := ctx.Deadline()
		fmt.Fprintf(os.Stderr, "kv: drain ended: %v, stale %t, deadline %t, progress stale %t\n", ctx.Err(),
			errors.Is(context.Cause(ctx), handoff.ErrStale), late, errors.Is(handoff.Progress(ctx, 2, 2), handoff.ErrStale))
		return context.Cause(ctx)
	}
	return nil
}

// begin waits until the data is ours, opens it, and waits until we are wanted.
func begin(ctx context.Context, h *handoff.Handoff, store *store) error {
	if err := h.WaitForBegin(ctx); err != nil {
		return err
	}
	if err := store.open(); err != nil {
		return err
	}
	switch lineage, err := h.State("lineage"); {
	case err == nil:
		store.inherit(lineage)
	case !errors.Is(err, handoff.ErrNoName): // a cold start has none
		return err
	}
	ready := handoff.Readiness{Revisions: []uint64{store.revision}}
	switch fault() {
	case "unhealthy":
		ready.Unhealthy, ready.Detail = true, "told to be unhealthy"
	case "crash":
		os.Exit(7)
	case "lost-write":
		if store.revision > 0 {
			ready.Revisions[0]--
		}
	}
	return h.Ready(ctx, ready)
}
