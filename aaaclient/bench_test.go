package aaaclient

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// A treadmill is an Outbox that never runs dry until n records are settled. It
// costs next to nothing, so that what is measured is delivery.
type treadmill struct {
	mu      sync.Mutex
	records []acct.Record
	n, left int
	done    chan struct{}
	wake    chan struct{}
}

func (o *treadmill) Wake() <-chan struct{} { return o.wake }

func (o *treadmill) Pending(_ context.Context, after uint64, max int) ([]acct.Delivery, error) {
	out := make([]acct.Delivery, 0, max)
	for id := after + 1; id <= uint64(o.n) && len(out) < max; id++ {
		out = append(out, acct.Delivery{ID: id, EndToEnd: uint32(id), Record: o.records[id%uint64(len(o.records))]})
	}
	return out, nil
}

func (o *treadmill) MarkSent(context.Context, []uint64) error { return nil }

func (o *treadmill) Settle(_ context.Context, s []acct.Settlement) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left -= len(s); o.left == 0 {
		close(o.done)
	}
	return nil
}

// BenchmarkDelivery delivers to our own server, in the same process: outbox,
// ACR, parse, digest, ACA, settlement.
func BenchmarkDelivery(b *testing.B) {
	for _, window := range []int{256, 1024} {
		b.Run(map[int]string{256: "window=256", 1024: "window=1024"}[window], func(b *testing.B) {
			_, address := serve(b, nowhere{})
			const n = 100_000
			all := records(5000, 4)
			slices.SortStableFunc(all, func(x, y acct.Record) int { return int(x.Number) - int(y.Number) })
			cfg := client(nil, address)
			cfg.Window, cfg.Timeout, cfg.Connect = window, 10*time.Second, time.Nanosecond
			b.ReportAllocs()
			for b.Loop() {
				o := &treadmill{records: all, n: n, left: n, done: make(chan struct{}), wake: make(chan struct{})}
				cfg.Outbox = o
				_, stop := runClient(b, cfg)
				<-o.done
				stop()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/ACR")
		})
	}
}

// nowhere is a Store that keeps nothing.
type nowhere struct{}

func (nowhere) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	return make([]acct.Outcome, len(cdrs)), nil
}
