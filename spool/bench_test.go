package spool

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// cpu returns the user and system time of the process.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run runs the journal until the test ends.
func run(tb testing.TB, j *Journal) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// flush waits until all that was appended is durable; the journal runs.
func flush(tb testing.TB, j *Journal) {
	tb.Helper()
	if err := j.Wait(tb.Context(), j.Appended()); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkJournal appends Messages of 24 flow records and 1,400 octets, reads
// them and trims behind. cpu-us/record is CPU seconds per million records.
func BenchmarkJournal(b *testing.B) {
	b.ReportAllocs()
	const records = 24
	j := open(b, b.TempDir(), Config{}).Journal()
	stop := run(b, j)
	data := make([]byte, 1400)
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	before := cpu(b)
	done := make(chan error, 1)
	go func() {
		r := j.Reader(0)
		for {
			es, err := r.Next(b.Context())
			if err != nil {
				done <- err
				return
			}
			if last := es[len(es)-1].Position; last >= uint64(b.N) {
				done <- nil
				return
			} else if last%(64<<10) < uint64(len(es)) {
				if err := j.Trim(b.Context(), last); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range b.N {
		if _, err := j.Append(acct.EntryMessage, noon.UnixNano(), 1, data); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N*records), "cpu-us/record")
	stop()
}

// BenchmarkCheckpoint commits 100,000 sessions that all moved.
func BenchmarkCheckpoint(b *testing.B) {
	b.ReportAllocs()
	const sessions = 100_000
	s := open(b, b.TempDir(), Config{})
	batch := acct.Batch{Needed: 1}
	for i := range sessions {
		batch.Sessions = append(batch.Sessions, acct.SessionState{
			ID: uint64(i + 1), SessionID: sessionID(i), User: fmt.Sprintf("user-%d@example.net", i), State: make([]byte, 100),
			Usage: acct.Usage{InputOctets: 123456789, OutputOctets: 234567890, InputPackets: 345678, OutputPackets: 456789},
			Open:  []acct.Share{{LedgerKey: key(noon.Unix()), Count: count(100)}},
		})
	}
	before := cpu(b)
	for b.Loop() {
		batch.Position++
		mustCommit(b, s, batch)
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N*sessions), "cpu-us/session")
}

// BenchmarkIdentities commits the identities of a million records at a time.
func BenchmarkIdentities(b *testing.B) {
	const pieces, size = 15, 64 << 10 // as dedup hands them out
	s := open(b, b.TempDir(), Config{})
	data := make([]byte, size*18)
	if _, err := rand.Read(data); err != nil {
		b.Fatal(err)
	}
	at := noon.Unix()
	before := cpu(b)
	for b.Loop() {
		batch := acct.Batch{Position: s.checkpoint.position + 1, Needed: 1, Floors: []acct.Floor{{Exporter: "router", Bucket: at - 60}}}
		for range pieces {
			batch.Identities = append(batch.Identities, acct.Identities{Exporter: "router", Bucket: at, Data: data})
		}
		mustCommit(b, s, batch)
		at += 60
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N*pieces*size), "cpu-us/identity")
}

// BenchmarkOutbox takes records from their cut to their settlement, 1,000 at
// a time.
func BenchmarkOutbox(b *testing.B) {
	const size = 1000
	s := open(b, b.TempDir(), Config{})
	o := s.Outbox()
	records := make([]acct.Record, size)
	for i := range records {
		records[i] = record(sessionID(i), 1, acct.Interim, count(10))
	}
	cycle := func(b *testing.B, n int, step func(ds []acct.Delivery, ids []uint64, answers []acct.Settlement)) time.Duration {
		var after uint64
		var spent time.Duration
		for i := range n {
			mustCommit(b, s, acct.Batch{Position: s.checkpoint.position + 1, Records: records})
			if i == 0 {
				ds, err := o.Pending(b.Context(), 0, 1)
				if err != nil {
					b.Fatal(err)
				}
				after = ds[0].ID - 1
			}
			before := cpu(b)
			ds, err := o.Pending(b.Context(), after, size)
			if err != nil || len(ds) != size {
				b.Fatal(len(ds), err)
			}
			after = ds[size-1].ID
			ids := make([]uint64, size)
			answers := make([]acct.Settlement, size)
			for i, d := range ds {
				ids[i] = d.ID
				answers[i] = acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, Peer: "aaa.example.net", At: noon}
			}
			step(ds, ids, answers)
			spent += cpu(b) - before
		}
		return spent
	}
	b.Run("cycle", func(b *testing.B) {
		b.ReportAllocs()
		spent := cycle(b, b.N, func(_ []acct.Delivery, ids []uint64, answers []acct.Settlement) {
			if err := o.MarkSent(b.Context(), ids); err != nil {
				b.Fatal(err)
			}
			if err := o.Settle(b.Context(), answers); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(spent.Microseconds())/float64(b.N*size), "cpu-us/record")
	})
	b.Run("cycle answered out of order", func(b *testing.B) {
		b.ReportAllocs()
		spent := cycle(b, b.N, func(_ []acct.Delivery, ids []uint64, answers []acct.Settlement) {
			if err := o.MarkSent(b.Context(), ids); err != nil {
				b.Fatal(err)
			}
			var even, odd []acct.Settlement
			for i, a := range answers {
				if i%2 == 0 {
					even = append(even, a)
				} else {
					odd = append(odd, a)
				}
			}
			for _, half := range [][]acct.Settlement{even, odd} {
				if err := o.Settle(b.Context(), half); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.ReportMetric(float64(spent.Microseconds())/float64(b.N*size), "cpu-us/record")
	})
	b.Run("commit", func(b *testing.B) {
		b.ReportAllocs()
		before := cpu(b)
		for b.Loop() {
			mustCommit(b, s, acct.Batch{Position: s.checkpoint.position + 1, Records: records})
		}
		b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N*size), "cpu-us/record")
	})
}

// BenchmarkCDRs stores new CDRs of 500 octets in calls of 32 from 16
// goroutines: STARTs of new sessions, then INTERIMs of all of them.
func BenchmarkCDRs(b *testing.B) {
	const size, callers = 32, 16
	for _, bb := range []struct {
		name string
		id   func(i int) (string, uint32)
	}{
		{"starts", func(i int) (string, uint32) { return sessionID(i), 0 }},
		{"interims of 100000 sessions", func(i int) (string, uint32) { return sessionID(i % 100_000), uint32(i / 100_000) }},
		{"other session ids", func(i int) (string, uint32) { return fmt.Sprintf("%x", uint64(i)*0x9e3779b97f4a7c15), 0 }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			dir := b.TempDir()
			c, err := OpenCDRs(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			avps := make([]byte, 500)
			var next int
			var mu sync.Mutex
			b.ResetTimer()
			before := cpu(b)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for {
						mu.Lock()
						first := next
						next += size
						mu.Unlock()
						if first >= b.N {
							return
						}
						cdrs := make([]acct.CDR, size)
						for i := range cdrs {
							id, n := bb.id(first + i)
							cdrs[i] = acct.CDR{SessionID: id, Number: n, Type: acct.Start, User: "alice@example.net",
								OriginHost: "bridge.example.net", OriginRealm: "example.net", Event: noon, At: noon, AVPs: avps}
						}
						if _, err := c.Store(b.Context(), cdrs); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/cdr")
		})
	}
}
