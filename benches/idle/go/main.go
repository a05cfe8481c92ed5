// Command idle is benches/idle/idle.c in Go.
package main

import (
	"context"
	"fmt"
	"os"

	"handoff"
)

func main() {
	if os.Getenv("BENCH_HANDOFF_FLOOR") != "" {
		os.Stdout.WriteString("!")
		return
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	h, err := handoff.Open()
	if err != nil {
		return err
	}
	if os.Getenv("BENCH_HANDOFF_START") != "" {
		os.Stdout.WriteString("!")
		return nil
	}
	h.OnDrain(func(context.Context) error { return nil })
	h.OnSeal(func(context.Context) ([]uint64, error) { return nil, nil })
	h.OnResume(func(context.Context) error { return nil })
	if err := h.WaitForBegin(ctx); err != nil {
		return err
	}
	if err := h.Ready(ctx, handoff.Readiness{}); err != nil {
		return err
	}
	_, err = h.Serve(ctx)
	return err
}
