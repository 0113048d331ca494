package asm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/asm/acct"
)

// A Feed gives the durable entries of the journal in order.
type Feed interface {
	// Next blocks until there are more. They are valid until the next call.
	// If ctx ends first, nothing is lost: its error is returned and the next
	// call goes on.
	Next(ctx context.Context) ([]acct.Entry, error)
}

// RunConfig is what a Runner works with.
type RunConfig struct {
	Config

	// Feed begins to read the journal behind a position. Required.
	Feed func(after uint64) Feed
	// Tick appends an acct.EntryTick to the journal. Required.
	Tick func(at time.Time) error
	// Trim allows the journal to drop entries below a position, after a
	// checkpoint. Nil keeps all.
	Trim func(ctx context.Context, below uint64) error

	// How often a checkpoint is made while entries come, as pace says.
	CheckpointEvery   time.Duration // 0 means 2s
	CheckpointEntries int           // at most so many entries lie between two; 0 means 1 Mi
	CheckpointOctets  int           // or octets of entries; 0 means 256 MiB
	CheckpointRecords int           // or records cut, suspended or released; 0 means 50000
}

// A Runner drives a Module and, when that fails, one after another, each from
// the last checkpoint.
//
//	journal --Feed--> Run --checkpoint--> Store
//	   ^               |
//	   +----- tick <---+ deadline
//
// Run owns the Module; the goroutine of ticks learns from it when the next is
// wanted. The other methods may be called at once from any goroutine.
type Runner struct {
	cfg      RunConfig
	deadline atomic.Int64  // Unix nanoseconds; 0 for none
	changed  chan struct{} // deadline has changed
	stats    atomic.Pointer[Stats]
	failures atomic.Uint64
	crash    uint64 // the entry that the last Module crashed at; 0 for none

	mu        sync.Mutex
	err       error         // of the failure that has not been overcome
	committed uint64        // position of the last checkpoint
	wanted    uint64        // the latest position that anybody Waits for
	hurry     func()        // wakes next up, nil if it does not sleep
	advanced  chan struct{} // closed when committed rises
}

// NewRunner returns a Runner that has not begun.
func NewRunner(cfg RunConfig) (*Runner, error) {
	if cfg.Store == nil || cfg.Journal == nil || cfg.Feed == nil || cfg.Tick == nil {
		return nil, errors.New("asm: RunConfig.Store, Journal, Feed and Tick are required")
	}
	def(&cfg.CheckpointEvery, 2*time.Second)
	def(&cfg.CheckpointEntries, 1<<20)
	def(&cfg.CheckpointOctets, 256<<20)
	def(&cfg.CheckpointRecords, 50_000)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{cfg: cfg, changed: make(chan struct{}, 1), advanced: make(chan struct{})}, nil
}

// Run works until ctx ends, then makes a last checkpoint. To drain, stop what
// writes to the journal, Wait for its last position, then end ctx.
//
// A failure of the Module, the store or the journal is logged and is no end:
// Run reloads from the last checkpoint, at first at once and then ever less
// often, up to every half minute. Its error is that of the last checkpoint.
func (r *Runner) Run(ctx context.Context) error {
	var ticks sync.WaitGroup
	tickCtx, stop := context.WithCancel(ctx)
	defer ticks.Wait()
	defer stop()
	ticks.Go(func() { r.tick(tickCtx) })

	const first, most = 100 * time.Millisecond, 30 * time.Second
	for backoff := first; ; backoff = min(2*backoff, most) {
		was := r.Committed()
		err := r.drive(ctx)
		if ctx.Err() != nil {
			if errors.Is(err, context.Canceled) {
				return nil // it ended before there was anything to store
			}
			return err
		}
		r.failures.Add(1)
		r.setErr(err)
		if r.Committed() != was {
			backoff = first
		}
		r.cfg.Log.Error("accounting has stopped and resumes at the last checkpoint", "error", err, "in", backoff)
		select {
		case <-ctx.Done():
			return nil // what is committed is all there is
		case <-time.After(backoff):
		}
	}
}

// drive runs one Module until it fails or ctx ends.
func (r *Runner) drive(ctx context.Context) (err error) {
	at := uint64(0) // the entry being applied
	defer func() {
		if p := recover(); p != nil {
			r.crash = at
			r.cfg.Log.Error("accounting has crashed", "position", at, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("asm: crash at entry %d: %v", at, p)
		}
	}()
	m, err := New(ctx, r.cfg.Config)
	if err != nil {
		return err
	}
	if r.crash != 0 {
		m.noteCrash(r.crash)
		r.crash = 0
		if err := m.Checkpoint(ctx); err != nil {
			return err
		}
	}
	r.publish(m)
	r.commit(ctx, m)
	feed := r.cfg.Feed(m.position)
	p := newPace(&r.cfg)
	for {
		batch, err := r.next(ctx, feed, m, &p)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("asm: read journal: %w", err)
		}
		for _, e := range batch {
			at = e.Position
			// An entry once begun is finished, so that the last checkpoint
			// can be made.
			if err := m.Apply(context.WithoutCancel(ctx), e); err != nil {
				return err
			}
			p.applied(&e)
			if p.full(m) {
				if err := r.checkpoint(ctx, m, &p); err != nil {
					return err
				}
			}
		}
		at = 0
		r.publish(m)
		if p.entries > 0 && (ctx.Err() != nil || p.due() || r.awaited(m)) {
			if err := r.checkpoint(ctx, m, &p); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// awaited reports whether somebody Waits for a position that m has reached.
func (r *Runner) awaited(m *Module) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted > r.committed && r.wanted <= m.position
}

// next returns the next entries of feed; none if a checkpoint of m is due, or
// waited for, first.
func (r *Runner) next(ctx context.Context, feed Feed, m *Module, p *pace) ([]acct.Entry, error) {
	if p.entries == 0 {
		return feed.Next(ctx)
	}
	timed, cancel := context.WithDeadline(ctx, p.until)
	defer cancel()
	r.sleep(cancel)
	defer r.sleep(nil)
	if r.awaited(m) {
		return nil, nil
	}
	batch, err := feed.Next(timed)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return batch, err
}

// sleep says what wakes next up.
func (r *Runner) sleep(hurry func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hurry = hurry
}

// finish bounds how long the last checkpoint may take.
const finish = 30 * time.Second

func (r *Runner) checkpoint(ctx context.Context, m *Module, p *pace) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finish)
	defer cancel()
	begun := time.Now()
	if err := m.Checkpoint(ctx); err != nil {
		return err
	}
	p.made(begun)
	r.setErr(nil)
	r.commit(ctx, m)
	return nil
}

// commit tells those who Wait, and the journal, how far the checkpoint is.
func (r *Runner) commit(ctx context.Context, m *Module) {
	r.mu.Lock()
	r.committed = m.position
	close(r.advanced)
	r.advanced = make(chan struct{})
	r.mu.Unlock()
	if r.cfg.Trim == nil {
		return
	}
	if err := r.cfg.Trim(ctx, m.Needed()); err != nil {
		r.cfg.Log.Warn("journal can't be trimmed", "error", err)
	}
}

// publish shows m to other goroutines.
func (r *Runner) publish(m *Module) {
	stats := m.Stats()
	r.stats.Store(&stats)
	due := int64(0)
	if d := m.Deadline(); !d.IsZero() {
		due = d.UnixNano()
	}
	if r.deadline.Swap(due) != due {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
}

// tick appends a tick to the journal whenever the pipeline waits for one.
func (r *Runner) tick(ctx context.Context) {
	const (
		again   = time.Second            // for the same deadline, should the clock have gone back
		spacing = 100 * time.Millisecond // while old entries are read, whose deadlines are long past
	)
	timer := time.NewTimer(again)
	defer timer.Stop()
	var ticked int64 // the deadline of the last tick
	var last time.Time
	for {
		due := r.deadline.Load()
		switch {
		case due == 0:
			timer.Stop()
		case due == ticked:
			timer.Reset(again)
		default:
			timer.Reset(max(time.Until(time.Unix(0, due)), time.Until(last.Add(spacing))))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case now := <-timer.C:
			ticked, last = due, now
			if err := r.cfg.Tick(now); err != nil {
				r.cfg.Log.Error("journal takes no tick", "error", err)
			}
		}
	}
}

// Wait blocks until the checkpoint includes a position of the journal. One is
// made as soon as the pipeline is there.
func (r *Runner) Wait(ctx context.Context, position uint64) error {
	for {
		r.mu.Lock()
		done, advanced := r.committed >= position, r.advanced
		if r.wanted = max(r.wanted, position); !done && r.hurry != nil {
			r.hurry()
		}
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-advanced:
		}
	}
}

// Committed returns the position of the last checkpoint.
func (r *Runner) Committed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.committed
}

// Err returns why accounting stands still, nil if it does not.
func (r *Runner) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Runner) setErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Failures returns how often accounting had to resume at the last checkpoint.
func (r *Runner) Failures() uint64 { return r.failures.Load() }

// Stats returns what the present Module has counted.
func (r *Runner) Stats() Stats {
	if s := r.stats.Load(); s != nil {
		return *s
	}
	return Stats{}
}
