package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
)

const (
	clockEvery     = time.Second
	clockStep      = time.Second     // a larger difference between the host's two clocks is a step
	clockTolerance = 5 * time.Second // how far the pipeline's clock may be ahead of the host's
	clockPatience  = 3               // looks in a row that must find it so before it is set back
	clockRest      = time.Minute     // between two times that it is set back
)

// A hostClock watches the host's clock. Time of day may step, back and forth,
// while the time since the host started does not; their difference tells.
type hostClock struct {
	known  bool
	offset time.Duration // of the time of day to the time since start
	ahead  int           // looks in a row that found the pipeline ahead
	last   time.Time     // when it was set back last, time since start

	// For metrics and /readyz; any goroutine.
	forward, back atomic.Uint64 // steps
	unsynced      atomic.Bool
	behind        atomic.Int64 // how far the host's clock is behind the pipeline's, nanoseconds; 0 within the tolerance
}

// look takes in the time of day and the time since some start, and returns by
// how much the time of day has stepped since the last look, 0 for not at all.
func (c *hostClock) look(wall time.Time, since time.Duration) (step time.Duration) {
	offset := time.Duration(wall.UnixNano()) - since
	if c.known {
		step = offset - c.offset
	}
	c.known, c.offset = true, offset
	switch {
	case step > clockStep:
		c.forward.Add(1)
	case step < -clockStep:
		c.back.Add(1)
	default:
		// It is slewed. Many small steps must not add up unseen, but NTP's
		// slewing is no more than 0.5 ms in a second.
		return 0
	}
	return step
}

// isAhead takes in the pipeline's clock and reports whether it is to be set
// back: not for a moment's difference, nor too often.
func (c *hostClock) isAhead(pipeline int64, wall, now time.Time) bool {
	by := time.Duration(pipeline - wall.UnixNano())
	if by <= clockTolerance {
		c.ahead = 0
		c.behind.Store(0)
		return false
	}
	c.behind.Store(int64(by))
	c.ahead++
	if c.ahead < clockPatience || !c.last.IsZero() && now.Sub(c.last) < clockRest {
		return false
	}
	c.ahead, c.last = 0, now
	return true
}

// watchClock watches the host's clock until ctx ends. Where the pipeline's is
// ahead of it, since the host's was set back, the pipeline's is set back too,
// by an entry of the journal: else billing would stand still until the time
// comes again.
func (b *bridge) watchClock(ctx context.Context) error {
	every := time.NewTicker(clockEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		now := time.Now() // has both clocks
		if step := b.clock.look(now, now.Sub(b.start)); step != 0 {
			b.log.Error("the host's clock has stepped", "by", step.Round(time.Millisecond))
		}
		if is := unsynchronized(); is != b.clock.unsynced.Swap(is) {
			if is {
				b.log.Warn("the host's clock is not synchronized: times in accounting records are only as good as it is")
			} else {
				b.log.Info("the host's clock is synchronized")
			}
		}
		if b.clock.isAhead(b.runner.Stats().Clock, now, now) {
			if err := b.setBackClock(now); err != nil {
				b.log.Error("the pipeline's clock is ahead and can't be set back", "error", err)
			}
		}
	}
}

// setBackClock puts it into the journal that the time is now.
func (b *bridge) setBackClock(now time.Time) error {
	by := time.Duration(b.clock.behind.Load()).Round(time.Second)
	c := asm.Command{What: asm.SetClock, By: "tollbridge", Reason: fmt.Sprintf("the host's clock is %v behind", by)}
	data, err := c.AppendBinary(nil)
	if err == nil {
		_, err = b.journal.Append(acct.EntryCommand, now.UnixNano(), 0, data)
	}
	return err
}

// unsynchronized reports whether the kernel says that nothing keeps its clock
// right (STA_UNSYNC, adjtimex(2)).
func unsynchronized() bool {
	const staUnsync = 0x40
	var t syscall.Timex
	_, err := syscall.Adjtimex(&t)
	return err == nil && t.Status&staUnsync != 0
}
