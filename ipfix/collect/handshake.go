package collect

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// errCrowded is why a handshake was given up for a newer one.
var errCrowded = errors.New("given up: too many handshakes at once")

// handshakes bounds the TLS and DTLS handshakes that are under way. The oldest
// gives way to a new one: an honest one takes milliseconds, while one that is
// meant to take up room takes as long as it may.
type handshakes struct {
	max int

	mu       sync.Mutex
	underWay list.List // of context.CancelCauseFunc, the oldest first
}

// begin returns a context for one handshake, which ends by itself after a
// timeout. done must be called when the handshake has ended.
func (h *handshakes) begin(ctx context.Context, timeout time.Duration) (_ context.Context, done func()) {
	ctx, give := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.underWay.Len() >= h.max {
		h.underWay.Remove(h.underWay.Front()).(context.CancelCauseFunc)(errCrowded)
	}
	e := h.underWay.PushBack(context.CancelCauseFunc(give))
	return ctx, func() {
		cancel()
		give(nil)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.underWay.Remove(e) // does nothing where it has given way
	}
}

// whyEnded returns the error of a handshake, or why its context ended it.
func whyEnded(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}
