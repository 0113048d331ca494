package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
	"tollbridge/spool"
)

// exportRate is how fast records are exported over TCP, per second.
const exportRate = 200_000

// exporting compares what durability costs: with the exporter's spool and
// acknowledgements, with the collector's journal alone, and without.
func exporting(l *lab) comparison {
	with := func(spool, journal bool) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			return l.at(func(dir string, port int) (sample, error) {
				return l.export(ctx, dir, port, l.size(2_000_000), spool, journal)
			})
		}
	}
	return comparison{
		name: "export", what: "Export over TCP and receive, both processes: acknowledged export", unit: "records",
		ours: contender{"acknowledged", with(true, true)},
		peers: []contender{
			{"the same over plain TCP, journal on", with(false, true)},
			{"the same over plain TCP, journal off", with(false, false)},
		},
	}
}

// export runs an exporter and a collector. The sample has the CPU time of
// both.
func (l *lab) export(ctx context.Context, dir string, port, records int, spooled, journaled bool) (sample, error) {
	journal, backlog := "", ""
	if journaled {
		journal = filepath.Join(dir, "journal")
	}
	if spooled {
		backlog = filepath.Join(dir, "backlog")
	}
	collector, err := startProcess(ctx, l.self, "receive", strconv.Itoa(port), journal)
	if err != nil {
		return sample{}, err
	}
	defer collector.kill()
	if err := awaitBound(ctx, port); err != nil {
		return sample{}, err
	}
	exporter, err := startProcess(ctx, l.self, "export", loopback(port), strconv.Itoa(records), backlog)
	if err != nil {
		return sample{}, err
	}
	defer exporter.kill()
	s := sample{}
	if s.cpu, err = exporter.wait(); err != nil {
		return s, fmt.Errorf("exporter: %w", err)
	}
	cpu, err := collector.stop()
	if err != nil {
		return s, fmt.Errorf("collector: %w", err)
	}
	s.cpu += cpu
	if _, err := fmt.Sscan(collector.stdout.String(), &s.n, &s.latency[0], &s.latency[1]); err != nil {
		return s, fmt.Errorf("collector said %q: %w", collector.stdout.String(), err)
	}
	if s.n != uint64(records) {
		return s, fmt.Errorf("%d records received of %d", s.n, records)
	}
	return s, nil
}

// exportChild is an Exporting Process: it exports records of the load to an
// address at exportRate, with acknowledgements if it is given a directory for
// its spool.
func exportChild(ctx context.Context, args []string) error {
	records, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	cfg := export.Config{Transport: ipfix.TCP, Address: args[0], Domain: 1}
	if dir := args[2]; dir != "" {
		b, err := backlog.Open(dir, backlog.Config{})
		if err != nil {
			return err
		}
		defer b.Close()
		cfg.Acknowledged = &export.Acknowledged{Backlog: b}
	}
	process, err := export.New(cfg)
	if err != nil {
		return err
	}
	running := make(chan error, 1)
	go func() { running <- process.Run(ctx) }()
	if err := exportLoad(ctx, process, records); err != nil {
		return err
	}
	return errors.Join(process.Close(ctx), <-running)
}

func exportLoad(ctx context.Context, process *export.Process, records int) error {
	template, err := ipfix.NewTemplate(256, accounting...)
	if err != nil {
		return err
	}
	l := newLoad(exportRate)
	began := time.UnixMilli(int64(l.began))
	var message [messageLength]byte
	for sent := 0; sent < records; {
		if sent%(burst*recordsPerMessage) == 0 {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * time.Second / exportRate)))
		}
		l.message(message[:])
		for r := message[20:]; len(r) > 0 && sent < records; r = r[recordLength:] {
			if err := process.Export(ctx, template, r[:recordLength]); err != nil {
				return err
			}
			sent++
		}
	}
	return nil
}

// receiveChild is a Collecting Process over TCP at a port, with a journal if it
// is given a directory for it. At its end it prints how many records it has,
// and the median and the 99th percentile, in nanoseconds, of the time from the
// end of a flow until it had its record, durably if there is a journal.
func receiveChild(ctx context.Context, args []string) error {
	collectAsServe()
	port, dir := args[0], args[1]
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	// A socket over UDP says that all is ready, to whom looks for one.
	bound, err := net.ListenPacket("udp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer bound.Close()
	var seen arrivals
	if dir == "" {
		process, err := collect.New(collect.Config{Journal: &seen})
		if err != nil {
			return err
		}
		if err := process.ServeTCP(ctx, ln); err != nil {
			return err
		}
		seen.print()
		return nil
	}

	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	journal := entries{s.Journal()}
	process, err := collect.New(collect.Config{Journal: journal, Acknowledge: journal})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	defer stop()
	done, read := make(chan error, 1), make(chan error, 1)
	go func() { done <- s.Journal().Run(running) }()
	go func() { read <- seen.follow(s.Journal().Reader(0)) }()
	if err := process.ServeTCP(ctx, ln); err != nil {
		return err
	}
	stop()
	if err := errors.Join(<-done, <-read); err != nil {
		return err
	}
	seen.print()
	return nil
}

// arrivals counts records, and how long after the end of their flow they came:
// of the first record in each Message, which is the oldest. It is a Journal
// that keeps nothing else.
type arrivals struct {
	position atomic.Uint64
	records  uint64
	took     []time.Duration
}

func (a *arrivals) Open(time.Time, collect.Session) (uint64, error) { return a.position.Add(1), nil }

func (a *arrivals) Message(_ time.Time, _ uint64, data []byte) (uint64, error) {
	a.add(data, time.Now())
	return a.position.Add(1), nil
}

func (a *arrivals) Close(time.Time, uint64) error { return nil }

// follow adds what the journal has, once it is durable.
func (a *arrivals) follow(r *spool.Reader) error {
	for {
		batch, err := r.Next(context.Background())
		if errors.Is(err, spool.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		for _, e := range batch {
			if e.Kind == acct.EntryMessage {
				a.add(e.Data, now)
			}
		}
	}
}

// add counts the records of a Message.
func (a *arrivals) add(message []byte, now time.Time) {
	be := binary.BigEndian
	for sets := message[ipfix.HeaderLength:]; len(sets) > 4; sets = sets[be.Uint16(sets[2:]):] {
		if be.Uint16(sets) != 256 {
			continue
		}
		a.records += uint64(be.Uint16(sets[2:])-4) / recordLength
		a.took = append(a.took, now.Sub(time.UnixMilli(int64(be.Uint64(sets[4+8:])))))
	}
}

func (a *arrivals) print() {
	slices.Sort(a.took)
	at := func(percent int) int64 {
		if len(a.took) == 0 {
			return 0
		}
		return int64(a.took[(len(a.took)-1)*percent/100])
	}
	fmt.Println(a.records, at(50), at(99))
}

// HeldUp implements collect.Durability.
func (j entries) HeldUp() ack.Reason { return ack.Overload }

// Sync implements collect.DurableJournal.
func (j entries) Sync(ctx context.Context) error { return j.Wait(ctx, j.Appended()) }
