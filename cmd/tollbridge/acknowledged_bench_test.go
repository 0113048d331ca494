package main

import (
	"context"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
	"tollbridge/spool"
)

// An exportPath is an Exporting Process, a Collecting Process and its journal, all in
// this process, over TCP on the loopback interface.
type exportPath struct {
	process *export.Process
	spool   *backlog.Backlog // nil for plain TCP
	close   func()
}

func newExportPath(b *testing.B, acknowledged bool, linger time.Duration) *exportPath {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	s, err := spool.Open(b.TempDir(), spool.Config{})
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.Journal().Run(ctx) })
	j := journal{s.Journal()}
	collector, err := collect.New(collect.Config{Journal: j, Acknowledge: j})
	check(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	collecting, stop := context.WithCancel(context.Background())
	var serving errgroup.Group
	serving.Go(func() error { return collector.ServeTCP(collecting, ln) })
	cfg := export.Config{Transport: ipfix.TCP, Address: ln.Addr().String(), Linger: linger}
	p := &exportPath{}
	if acknowledged {
		p.spool, err = backlog.Open(b.TempDir(), backlog.Config{})
		check(err)
		cfg.Acknowledged = &export.Acknowledged{Backlog: p.spool}
	}
	p.process, err = export.New(cfg)
	check(err)
	g.Go(func() error { _ = p.process.Run(ctx); return nil })
	p.close = func() {
		check(p.process.Close(context.Background()))
		stop()
		check(serving.Wait())
		check(j.Sync(context.Background()))
		cancel()
		check(g.Wait())
		check(s.Close())
		if p.spool != nil {
			check(p.spool.Close())
		}
	}
	return p
}

// flowTemplate is of 57 octets, as a flow record has.
func flowTemplate(b *testing.B) *ipfix.Template {
	b.Helper()
	t, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8}, ipfix.FieldSpecifier{ID: ipfix.InterfaceName, Length: 49})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAcknowledgedExport takes records from Export until they are in the
// collector's journal, over plain TCP and with acknowledgements: CPU of both
// ends and the journal. One CPU-ns/op is a thousandth of a CPU second for each
// million records.
func BenchmarkAcknowledgedExport(b *testing.B) {
	t, record := flowTemplate(b), make([]byte, 57)
	for _, acknowledged := range []bool{false, true} {
		b.Run(map[bool]string{false: "tcp", true: "acknowledged"}[acknowledged], func(b *testing.B) {
			p := newExportPath(b, acknowledged, time.Second)
			before := cpu()
			for b.Loop() {
				if err := p.process.Export(b.Context(), t, record); err != nil {
					b.Fatal(err)
				}
			}
			p.close()
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "CPU-ns/op")
		})
	}
}

// BenchmarkAcknowledgementLatency is the time from a flow's export to the
// exporter's knowing that it is durable, at 50,000 records a second, with
// Messages that wait for company for up to 100 ms.
func BenchmarkAcknowledgementLatency(b *testing.B) {
	t, record := flowTemplate(b), make([]byte, 57)
	p := newExportPath(b, true, 100*time.Millisecond)
	type sample struct {
		position uint64
		at       time.Time
	}
	samples := make(chan sample, 1<<16)
	var g errgroup.Group
	var took []time.Duration
	g.Go(func() error {
		for s := range samples {
			if err := p.process.Acknowledged(b.Context(), s.position); err != nil {
				return err
			}
			took = append(took, time.Since(s.at))
		}
		return nil
	})
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for b.Loop() {
		<-pace.C
		samples <- sample{p.spool.Next(), time.Now()}
		for range 50 {
			if err := p.process.Export(b.Context(), t, record); err != nil {
				b.Fatal(err)
			}
		}
	}
	close(samples)
	p.close()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
