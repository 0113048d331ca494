package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/ipfix/collect"
	"tollbridge/spool"
)

// journalRate is how fast records are sent to receivers, per second.
const journalRate = 400_000

// goflow2Rate is what goflow2 can take.
const goflow2Rate = 60_000

func journaling(l *lab) comparison {
	return comparison{
		name: "journal", what: "Receive over UDP, to the fsynced journal", unit: "records", aim: 0.35,
		ours: contender{"ipfix/collect and spool", func(ctx context.Context) (sample, error) {
			return l.receive(ctx, l.size(4_000_000), journalRate, l.startCollector)
		}},
		peers: []contender{
			{"nfcapd, to a file, no fsync", func(ctx context.Context) (sample, error) {
				return l.receive(ctx, l.size(4_000_000), journalRate, l.startNfcapd)
			}},
			{"goflow2, to a file (bin), no fsync", func(ctx context.Context) (sample, error) {
				return l.receive(ctx, l.size(600_000), goflow2Rate, l.startGoflow2)
			}},
		},
	}
}

// A starter starts a receiver of IPFIX at a UDP port that writes into dir.
// Once it has ended, count returns how many records it has there.
type starter func(ctx context.Context, dir string, port int) (p *process, count func(context.Context) (uint64, error), err error)

// maxLoss is what part of its load a receiver may lose. The measurement is
// repeated slower otherwise.
const maxLoss = 0.001

// receive sends records at a rate to what start starts, stops it once it has
// nothing more to do, and sees how many it has.
func (l *lab) receive(ctx context.Context, records, rate int, start starter) (sample, error) {
	const attempts = 4
	var s sample
	for range attempts {
		var err error
		if s, err = l.at(func(dir string, port int) (sample, error) {
			return receiveOnce(ctx, dir, port, records, rate, start)
		}); err != nil {
			return s, err
		}
		if float64(s.lost) <= maxLoss*float64(s.n+s.lost) {
			return s, nil
		}
		rate = rate * 2 / 3
	}
	return s, fmt.Errorf("%d of %d records lost even at %d a second", s.lost, s.n+s.lost, rate)
}

func receiveOnce(ctx context.Context, dir string, port, records, rate int, start starter) (sample, error) {
	p, count, err := start(ctx, dir, port)
	if err != nil {
		return sample{}, err
	}
	defer p.kill()
	if err := awaitBound(ctx, port); err != nil {
		return sample{}, err
	}
	messages := (records + recordsPerMessage - 1) / recordsPerMessage
	if err := sendUDP(ctx, port, newLoad(rate), messages, rate); err != nil {
		return sample{}, err
	}
	if err := awaitRead(ctx, port); err != nil {
		return sample{}, err
	}
	if err := p.settle(ctx); err != nil {
		return sample{}, err
	}
	cpu, err := p.stop()
	if err != nil {
		return sample{}, err
	}
	n, err := count(ctx)
	if err != nil {
		return sample{}, err
	}
	sent := uint64(messages * recordsPerMessage)
	if n == 0 || n > sent {
		return sample{}, fmt.Errorf("%d records received of %d", n, sent)
	}
	return sample{cpu: cpu, n: n, lost: sent - n}, nil
}

func (l *lab) startCollector(ctx context.Context, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
	p, err := startProcess(ctx, l.self, "collect", dir, strconv.Itoa(port))
	return p, func(ctx context.Context) (uint64, error) { return journaled(ctx, dir) }, err
}

// journaled counts the Data Records in the journal in dir: Messages of the
// load but for the Template's.
func journaled(ctx context.Context, dir string) (uint64, error) {
	s, err := spool.OpenReadOnly(dir)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	stats, err := s.Stats(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for position := stats.First; position <= stats.Last; position++ {
		e, err := s.Journal().Read(ctx, position)
		if err != nil {
			return 0, err
		}
		if e.Kind == acct.EntryMessage && len(e.Data) == messageLength {
			n += recordsPerMessage
		}
	}
	return n, nil
}

// collectChild is a Collecting Process with a journal and nothing else.
func collectChild(ctx context.Context, args []string) error {
	collectAsServe()
	dir, port := args[0], args[1]
	s, err := spool.Open(filepath.Clean(dir), spool.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	process, err := collect.New(collect.Config{Journal: entries{s.Journal()}})
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Journal().Run(running) }()
	if err := process.ServeUDP(ctx, conn.(*net.UDPConn)); err != nil {
		return err
	}
	stop()
	return <-done
}

// entries gives a Collecting Process its words for the spool's journal.
type entries struct{ *spool.Journal }

func (j entries) Open(at time.Time, s collect.Session) (uint64, error) {
	data, err := asm.SessionInfo(s).AppendBinary(nil)
	if err != nil {
		return 0, err
	}
	return j.Append(acct.EntryOpen, at.UnixNano(), 0, data)
}

func (j entries) Message(at time.Time, session uint64, data []byte) (uint64, error) {
	return j.Append(acct.EntryMessage, at.UnixNano(), session, data)
}

func (j entries) Close(at time.Time, session uint64) error {
	_, err := j.Append(acct.EntryClose, at.UnixNano(), session, nil)
	return err
}
