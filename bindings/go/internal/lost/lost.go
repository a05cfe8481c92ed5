// Package lost is how package web learns that the connections that it gave are the successor's for good.
package lost

import (
	"context"
	"sync"
)

// Hooks are what is to be done when a successor has committed, and this process may have to take over from it.
type Hooks struct {
	mu    sync.Mutex
	hooks []func()
}

// Run runs what was registered since the last Run or Forget.
func (l *Hooks) Run() {
	for _, hook := range l.take() {
		hook()
	}
}

// Forget is for a handoff that was undone before the commit.
func (l *Hooks) Forget() { l.take() }

func (l *Hooks) take() []func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	hooks := l.hooks
	l.hooks = nil
	return hooks
}

type key struct{}

// Context is one in which When registers with l.
func Context(ctx context.Context, l *Hooks) context.Context { return context.WithValue(ctx, key{}, l) }

// When registers hook for the handoff of ctx, which is that of a drain or a seal. In others it does nothing.
func When(ctx context.Context, hook func()) {
	if l, ok := ctx.Value(key{}).(*Hooks); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hooks = append(l.hooks, hook)
	}
}
