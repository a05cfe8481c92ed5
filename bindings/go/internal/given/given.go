// Package given is how package web learns that the connections that it gave are the successor's for good.
package given

import (
	"context"
	"sync"
)

// Losses are what is to be done when a successor has committed, but this process may still have to take over from it.
type Losses struct {
	mu    sync.Mutex
	hooks []func()
}

// Run runs what was registered since the last Run or Forget.
func (l *Losses) Run() {
	for _, hook := range l.take() {
		hook()
	}
}

// Forget is for a handoff that was undone before the commit.
func (l *Losses) Forget() { l.take() }

func (l *Losses) take() []func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	hooks := l.hooks
	l.hooks = nil
	return hooks
}

type key struct{}

// Context is one in which WhenLost registers with l.
func Context(ctx context.Context, l *Losses) context.Context { return context.WithValue(ctx, key{}, l) }

// WhenLost registers hook for the handoff of ctx, which is that of a drain or a seal. In others it does nothing.
func WhenLost(ctx context.Context, hook func()) {
	if l, ok := ctx.Value(key{}).(*Losses); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hooks = append(l.hooks, hook)
	}
}
