package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/cdrfile"
	"tollbridge/aaaclient/credit"
	"tollbridge/aaaclient/peer"
	"tollbridge/asm"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/ipfix/collect"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// A bridge is the daemon, with everything opened that it needs.
type bridge struct {
	cfg   config.Config
	log   *slog.Logger
	start time.Time

	spool     *spool.Spool
	journal   journal
	collector *collect.Process
	runner    *asm.Runner
	client    *aaaclient.Client
	demands   *demands     // of its peers
	quotas    []*quota     // of partners that have a bound
	files     []users.File // of bindings, as they were at the start

	credentials credentials     // of the collector
	credit      *credit.Process // nil without credit control
	disconnect  *disconnector   // nil where creditControl.atZero is report
	realtime    *realtime       // likewise

	cdrs   *spool.CDRs       // nil without a server
	server *aaaserver.Server // likewise
	table  *peer.Table       // of client and server that are one node; nil where they are two

	sources  sources             // of user bindings, files apart
	cdrFiles []*cdrfile.Exporter // for partners who take files

	entrance entrance    // of requests into the journal
	obeying  atomic.Bool // the journal is being given interim intervals

	sockets

	archive *archive.Archive // nil for none

	books atomic.Pointer[checkedBooks] // nil before the first check

	commands net.Listener // from the command line of the state directory's owner
	control  control.Server
	clock    hostClock

	closers []func() error
}

// newBridge opens what cfg asks for: users files, spool, sockets. Nothing
// runs yet. After an error nothing stays open.
func newBridge(cfg config.Config, log *slog.Logger) (*bridge, error) {
	b := &bridge{cfg: cfg, log: log, start: time.Now()}
	b.entrance.opened, b.entrance.closed = make(chan struct{}), make(chan struct{})
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// open opens one part after the other: what a part needs is open before it.
func (b *bridge) open() error {
	for _, part := range []func() error{
		b.openBindings,
		b.openSpool,
		b.openArchive,
		b.openCommands,
		b.listen,
		b.openSources,
		b.openServer,
		b.openFiles,
		b.openCollector,
		b.openPipeline,
		b.openDelivery,
		b.openDisconnect,
		b.openCredit,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// openBindings reads the users' files.
func (b *bridge) openBindings() error {
	for _, name := range b.cfg.Users.Files {
		f, err := users.ParseFile(name)
		if err != nil {
			return err
		}
		logWarnings(b.log, f)
		b.files = append(b.files, f)
	}
	return nil
}

func (b *bridge) openSpool() (err error) {
	if b.spool, err = spool.Open(b.cfg.Data, spool.Config{Lease: b.cfg.Spool.Lease, Log: b.log}); err != nil {
		return err
	}
	b.closers = append(b.closers, b.spool.Close)
	b.journal = journal{b.spool.Journal()}
	return nil
}

// openCollector opens the Collecting Process.
func (b *bridge) openCollector() error {
	c := collect.Config{Journal: b.journal}
	if b.cfg.CollectingProcess.Acknowledge {
		c.Acknowledge = b.journal
	}
	return b.collectInto(c)
}

// collectInto opens a Collecting Process that hands what it collects to the
// journal in c.
func (b *bridge) collectInto(c collect.Config) (err error) {
	if c.TLS, err = b.collectTLS(); err != nil {
		return err
	}
	c.Exporters, c.Enterprise, c.Log = exporters(b.cfg), uint32(b.cfg.Delivery.VendorID), b.log
	p := &b.cfg.CollectingProcess
	c.IdleTimeout, c.MaxHandshakes = p.IdleTimeout, p.MaxHandshakes
	c.MaxExporterSessions, c.MaxExporterConnections = p.MaxSessions, p.MaxConnections
	if p.LookUpNames {
		c.LookUp = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	b.collector, err = collect.New(c)
	return err
}

func (b *bridge) openPipeline() (err error) {
	b.runner, err = asm.NewRunner(asm.RunConfig{
		Config:          asm.Config{Store: b.spool, Journal: b.spool.Journal(), Log: b.log},
		Feed:            func(after uint64) asm.Feed { return b.spool.Journal().Reader(after) },
		Tick:            b.journal.tick,
		Trim:            b.trimJournal,
		CheckpointEvery: b.cfg.Spool.Checkpoint,
	})
	return err
}

// Close gives back what newBridge opened, the latest first. Sockets that Run
// has closed already are no error.
func (b *bridge) Close() error {
	var errs []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		if err := b.closers[i](); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	b.closers = nil
	return errors.Join(errs...)
}

// Run works until ctx ends, then stops in the order in which data flows: what
// was read is journaled, what is journaled goes through the pipeline and into
// a last checkpoint, answers that are due are awaited. An error of ctx is
// none.
//
//	collect, watch users ──► journal ──► pipeline ──► delivery ──► server
//	                                                  housekeeping, status
func (b *bridge) Run(ctx context.Context) error {
	return runStages(ctx,
		stage{"collecting", b.collect},
		stage{"pipeline", b.pipeline},
		stage{"journal", b.spool.Journal().Run},
		stage{"delivery", b.deliver},
		stage{"server", b.serve},
		stage{"archive", b.keepArchive},
		stage{"housekeeping", b.keepHouse},
		stage{"bookkeeping", b.keepBooks},
		stage{"credit control", b.controlCredit},
		stage{"clock", b.watchClock},
		stage{"lease", b.holdLease},
		stage{"status", func(ctx context.Context) error { return b.serveStatus(ctx, b.metrics(), b.unready) }},
		stage{"control", b.serveControl},
	)
}

// collect brings in messages and user bindings.
func (b *bridge) collect(ctx context.Context) error {
	defer close(b.entrance.closed)
	if err := b.journal.begin(b.start, settings(b.cfg)); err != nil {
		return err
	}
	bindings := bindings{journal: b.journal, files: b.files, log: b.log}
	if err := bindings.put(); err != nil {
		return err
	}
	if err := b.entrance.resume(ctx, b.start); err != nil {
		return err
	}
	close(b.entrance.opened)
	g, ctx := errgroup.WithContext(ctx)
	for i := range b.files {
		g.Go(func() error { return bindings.watch(ctx, i, b.cfg.Users.Reload) })
	}
	g.Go(func() error {
		marks := spool.Marks{Journal: int64(b.cfg.Spool.MaxJournal), Outbox: int64(b.cfg.Spool.MaxOutbox), Free: int64(b.cfg.Spool.MinFree)}
		if b.archive != nil {
			marks.Archive, marks.Archived = int64(b.cfg.Archive.HoldAt), b.archive.Octets
		}
		return b.spool.Guard(ctx, marks)
	})
	b.serveCollectors(ctx, g)
	g.Go(func() error { return b.sources.run(ctx) })
	return g.Wait()
}

// serveCollectors has g serve all that is listened on for IPFIX until ctx
// ends.
func (b *bridge) serveCollectors(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return b.credentials.watch(ctx) })
	for _, conn := range b.udp {
		g.Go(func() error { return b.collector.ServeUDP(ctx, conn) })
	}
	for _, ln := range b.tcp {
		g.Go(func() error { return b.collector.ServeTCP(ctx, ln) })
	}
	for _, ln := range b.tls {
		g.Go(func() error { return b.collector.ServeTLS(ctx, ln) })
	}
	for _, ln := range b.sctp {
		g.Go(func() error { return b.collector.ServeSCTP(ctx, ln) })
	}
	for _, conn := range b.dtls {
		g.Go(func() error { return b.collector.ServeDTLS(ctx, conn) })
	}
	g.Go(func() error { <-ctx.Done(); return nil }) // a server alone collects nothing
}

// pipeline runs until what was appended to the journal when ctx ended is in a
// checkpoint, or until drainTimeout.
func (b *bridge) pipeline(ctx context.Context) error {
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var draining sync.WaitGroup
	defer draining.Wait()
	defer stop()
	draining.Go(func() {
		defer stop()
		select {
		case <-ctx.Done():
		case <-runCtx.Done():
			return
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		last := b.spool.Journal().Appended()
		if b.spool.Journal().Wait(drain, last) != nil {
			return // the journal has failed, which it tells itself
		}
		if err := b.runner.Wait(drain, last); err != nil {
			b.log.Warn("stopping before the journal is worked off; the rest follows at the next start", "position", b.runner.Committed(), "last", last)
		}
	})
	return b.runner.Run(runCtx)
}

// drainTimeout bounds how long a stopping daemon works off its journal.
const drainTimeout = 30 * time.Second

func (b *bridge) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, ln := range b.diameter {
		g.Go(func() error { return b.server.Serve(ctx, ln) })
	}
	for _, ln := range b.diameterTLS {
		g.Go(func() error { return b.server.ServeTLS(ctx, ln) })
	}
	g.Go(func() error { <-ctx.Done(); return nil }) // there may be no server
	return g.Wait()
}

// serveControl answers what commands ask of the running daemon.
func (b *bridge) serveControl(ctx context.Context) error { return b.control.Serve(ctx, b.commands) }

// collectTLS reads the files for TLS and DTLS, where either is listened for.
func (b *bridge) collectTLS() (*collect.TLS, error) {
	c := &b.cfg.CollectingProcess
	b.credentials.key, b.credentials.log = "collectingProcess.tls", b.log
	if len(c.TLSCollectors)+len(c.DTLSCollectors) == 0 {
		return nil, nil
	}
	b.credentials.files = c.TLS
	b.credentials.use = func(certificate tls.Certificate, ca *x509.CertPool) error {
		return b.collector.SetTLS(collect.TLS{Certificate: certificate, ClientCAs: ca})
	}
	certificate, ca, err := b.credentials.load()
	if err != nil {
		return nil, err
	}
	return &collect.TLS{Certificate: certificate, ClientCAs: ca}, nil
}
