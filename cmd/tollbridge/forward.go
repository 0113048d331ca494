package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/asm"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// forward collects, and passes on all of it, until ctx ends.
//
//	exporters ──► collect ──► backlog ──► export ──► the collector that accounts
//	    ▲                                   │
//	    └────────── acknowledgements ◄──────┘
func forward(ctx context.Context, c config.Config, log *slog.Logger) (err error) {
	kept, err := backlog.Open(filepath.Join(c.Data, "forward"), backlog.Config{MaxOctets: int64(c.Forward.MaxSpool), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	c.Server.Listen, c.Server.TLSListen, c.Server.SCTPListen = nil, nil, nil // they are of those who account
	b := &bridge{cfg: c, log: log, start: time.Now()}
	defer func() { err = errors.Join(err, b.Close()) }()
	j, err := newForwardJournal(c, kept, log)
	if err != nil {
		return err
	}
	if err := b.listen(); err != nil {
		return err
	}
	collecting := collect.Config{Journal: j}
	if c.CollectingProcess.Acknowledge {
		collecting.Acknowledge = j
	}
	if err := b.collectInto(collecting); err != nil {
		return err
	}
	log.Info("started", "version", version, "data", c.Data, "forward", c.Forward.To)
	context.AfterFunc(ctx, func() { log.Info("stopping") })
	err = runStages(ctx,
		stage{"collecting", func(ctx context.Context) error {
			if err := j.put(ack.Forwarded{Kind: ack.Began, Time: b.start.UnixNano()}); err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(ctx)
			b.serveCollectors(ctx, g)
			return g.Wait()
		}},
		stage{"forwarding", j.run},
		stage{"status", func(ctx context.Context) error {
			return b.serveStatus(ctx, metrics{b.collectorMetrics, j.metrics}, j.unready)
		}},
	)
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// A forwardJournal is the journal of a collector that passes on: the backlog
// of its own Exporting Process.
type forwardJournal struct {
	process  *export.Process
	backlog  *backlog.Backlog
	template *ipfix.Template
	owner    bool // an exporter is told only of what the collector that accounts has
	log      *slog.Logger
	sessions atomic.Uint64
	last     atomic.Uint64 // the latest position
	most     int64         // octets that the backlog may have
}

var (
	_ collect.Journal        = &forwardJournal{}
	_ collect.StreamJournal  = &forwardJournal{}
	_ collect.DurableJournal = &forwardJournal{}
	_ collect.Durability     = &forwardJournal{}
)

func newForwardJournal(c config.Config, kept *backlog.Backlog, log *slog.Logger) (*forwardJournal, error) {
	enterprise := uint32(c.Delivery.VendorID)
	cfg := export.Config{
		Transport: ipfix.TLS, Address: c.Forward.To[0], Backups: c.Forward.To[1:], Domain: 1, MaxMessage: ipfix.MaxMessage,
		Reconnect: c.Forward.Reconnect, MaxReconnect: c.Forward.MaxReconnect, Linger: 200 * time.Millisecond, Log: log,
		Acknowledged: &export.Acknowledged{Backlog: kept, Enterprise: enterprise},
	}
	if c.Forward.Plaintext {
		cfg.Transport = ipfix.TCP
	} else {
		certificate, ca, err := c.CollectingProcess.TLS.Load()
		if err != nil {
			return nil, err
		}
		cfg.TLS = &export.TLS{Certificate: certificate, RootCAs: ca}
	}
	p, err := export.New(cfg)
	if err != nil {
		return nil, err
	}
	j := &forwardJournal{
		process: p, backlog: kept, template: ack.ForwardedTemplate(enterprise), owner: c.Forward.Acknowledge == "owner", log: log,
		most: int64(c.Forward.MaxSpool),
	}
	// No two lives of this collector name two sessions alike.
	j.sessions.Store(uint64(time.Now().UnixNano()))
	return j, nil
}

// run passes on until ctx ends, and then what is left, for a while.
func (j *forwardJournal) run(ctx context.Context) error {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- j.process.Run(running) }()
	<-ctx.Done()
	closing, cancelClosing := context.WithTimeout(running, closeTimeout)
	defer cancelClosing()
	if err := j.process.Close(closing); err != nil {
		j.log.Warn("stopping before all is passed on; the rest follows at the next start", "error", err)
	}
	cancel()
	<-ended
	return nil
}

func (j *forwardJournal) put(f ack.Forwarded) error {
	_, err := j.keep(f)
	return err
}

func (j *forwardJournal) keep(f ack.Forwarded) (uint64, error) {
	position, err := j.process.Keep(context.Background(), j.template, f.Append(nil))
	if err == nil {
		j.last.Store(position)
	}
	return position, err
}

// Open implements collect.Journal.
func (j *forwardJournal) Open(at time.Time, s collect.Session) (uint64, error) {
	info, err := asm.SessionInfo(s).AppendBinary(nil)
	if err != nil {
		return 0, err
	}
	number := j.sessions.Add(1)
	return number, j.put(ack.Forwarded{Kind: ack.Opened, Session: number, Time: at.UnixNano(), Octets: info})
}

// Message implements collect.Journal.
func (j *forwardJournal) Message(at time.Time, session uint64, data []byte) (uint64, error) {
	return j.StreamMessage(at, session, 0, data)
}

// StreamMessage implements collect.StreamJournal.
func (j *forwardJournal) StreamMessage(at time.Time, session uint64, stream uint16, data []byte) (uint64, error) {
	f := ack.Forwarded{Kind: ack.Received, Session: session, Stream: stream, Time: at.UnixNano(), Octets: data}
	if head := len(data) - ack.MaxForwarded; head > 0 {
		f.Kind, f.Octets = ack.Head, data[:head]
		if err := j.put(f); err != nil {
			return 0, err
		}
		f.Kind, f.Octets = ack.Rest, data[head:]
	}
	return j.keep(f)
}

// Close implements collect.Journal.
func (j *forwardJournal) Close(at time.Time, session uint64) error {
	return j.put(ack.Forwarded{Kind: ack.Closed, Session: session, Time: at.UnixNano()})
}

// Sync implements collect.DurableJournal.
func (j *forwardJournal) Sync(ctx context.Context) error { return j.Wait(ctx, j.last.Load()) }

// Wait implements collect.Durability.
func (j *forwardJournal) Wait(ctx context.Context, position uint64) error {
	if !j.owner {
		return j.backlog.Sync()
	}
	err := j.process.Acknowledged(ctx, position)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// HeldUp implements collect.Durability.
func (j *forwardJournal) HeldUp() ack.Reason {
	if j.owner {
		return ack.Standby
	}
	return ack.DiskFull
}

// metrics are those of passing on.
func (j *forwardJournal) metrics(counter counter, gauge gauge) {
	kept, s := j.backlog.Stats(), j.process.Stats()
	gauge("forward_kept_messages", "Messages that the collector that accounts has not acknowledged yet.", float64(kept.Messages))
	gauge("forward_kept_octets", "Octets of the files that keep them.", float64(kept.Octets))
	gauge("forward_position", "Position of the latest one.", float64(kept.Position))
	gauge("forward_acknowledged_position", "Position up to which they are acknowledged.", float64(kept.Acked))
	counter("forward_damaged_messages_total", "Messages that were not read as they were kept, and are lost.", s.Damaged)
	counter("forward_connections_total", "Connections made to a collector that accounts.", s.Connections)
	counter("forward_connection_failures_total", "Attempts that failed.", s.Failures)
	counter("forward_connections_broken_total", "Connections that ended otherwise than in order.", s.Broken)
	counter("forward_messages_total", "Messages sent, each once.", s.Messages)
	counter("forward_resent_total", "Messages sent again.", s.Resent)
	counter("forward_held_up_total", "Times that the collector that accounts said to wait.", s.HeldUp)
}

// unready is why a collector that passes on is not ready.
func (j *forwardJournal) unready() []string {
	var why []string
	if j.process.Stats().Connections == 0 {
		why = append(why, "no collector that accounts was reached yet: what comes is kept")
	}
	if kept := j.backlog.Stats().Octets; j.most > 0 && kept > j.most/10*9 {
		why = append(why, fmt.Sprintf("messages are about to wait: %d octets are not acknowledged, forward.maxSpool is %d", kept, j.most))
	}
	return why
}
