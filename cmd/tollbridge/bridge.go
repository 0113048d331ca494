package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
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
	"tollbridge/ipfix/sctp"
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
	quotas    []*quota     // of partners that have a bound
	files     []users.File // of bindings, as they were at the start

	credentials credentials     // of the collector
	credit      *credit.Process // nil without credit control
	disconnect  *disconnector   // nil unless creditControl.atZero is disconnect

	cdrs   *spool.CDRs       // nil without a server
	server *aaaserver.Server // likewise

	sources  sources             // of user bindings, files apart
	cdrFiles []*cdrfile.Exporter // for partners who take files

	entrance          entrance          // of requests into the journal
	obeying           atomic.Bool       // the journal is being given interim intervals
	serverCredentials *peer.Credentials // nil without TLS

	udp      []*net.UDPConn
	dtls     []*net.UDPConn
	tcp      []net.Listener
	tls      []net.Listener
	sctp     []*sctp.Listener
	diameter []net.Listener
	status   net.Listener

	diameterTLS []net.Listener

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

func (b *bridge) open() error {
	for _, name := range b.cfg.Users.Files {
		f, err := users.ParseFile(name)
		if err != nil {
			return err
		}
		logWarnings(b.log, f)
		b.files = append(b.files, f)
	}
	var err error
	if b.spool, err = spool.Open(b.cfg.Data, spool.Config{Lease: b.cfg.Spool.Lease != 0, Log: b.log}); err != nil {
		return err
	}
	b.closers = append(b.closers, b.spool.Close)
	b.journal = journal{b.spool.Journal()}
	if a := b.cfg.Archive; a.Dir != "" {
		b.archive, err = archive.Open(context.Background(), archive.Config{
			Dir: a.Dir, Spool: b.spool, Messages: &archivedMessages{},
			Interval: a.Interval, Keep: a.Keep, Octets: int64(a.MaxOctets), Log: b.log,
		})
		if err != nil {
			return err
		}
		b.closers = append(b.closers, b.archive.Close)
	}
	if b.commands, err = control.Listen(context.Background(), b.cfg.Data); err != nil {
		return err
	}
	b.closers = append(b.closers, b.commands.Close)
	if err := b.listen(); err != nil {
		return err
	}
	if err := b.openSources(); err != nil {
		return err
	}
	if err := b.openServer(); err != nil {
		return err
	}
	if err := b.openFiles(); err != nil {
		return err
	}

	secure, err := b.collectTLS()
	if err != nil {
		return err
	}
	collecting := collect.Config{
		Journal: b.journal, Exporters: exporters(b.cfg), TLS: secure,
		Enterprise: uint32(b.cfg.Delivery.VendorID), Log: b.log,
	}
	if b.cfg.CollectingProcess.Acknowledge {
		collecting.Acknowledge = b.journal
	}
	if b.collector, err = collect.New(collecting); err != nil {
		return err
	}
	b.handleRequeue()
	control.Handle(&b.control, "pull", b.pull)
	control.Handle(&b.control, "import", b.importUsers)
	b.runner, err = asm.NewRunner(asm.RunConfig{
		Config:          asm.Config{Store: b.spool, Journal: b.spool.Journal(), Log: b.log},
		Feed:            func(after uint64) asm.Feed { return b.spool.Journal().Reader(after) },
		Tick:            b.journal.tick,
		Trim:            b.trimJournal,
		CheckpointEvery: b.cfg.Spool.Checkpoint,
	})
	if err != nil {
		return err
	}
	b.quotas = quotas(b.cfg.Delivery)
	if b.client, err = b.delivery(); err != nil {
		return err
	}
	return b.openCredit()
}

// listen opens the sockets.
func (b *bridge) listen() error {
	var lc net.ListenConfig
	ctx := context.Background()
	tcp := func(key string, a netip.AddrPort) (net.Listener, error) {
		ln, err := lc.Listen(ctx, "tcp", a.String())
		if err != nil {
			return nil, listenError(key, err)
		}
		b.closers = append(b.closers, ln.Close)
		b.log.Info("listening", "what", key, "address", ln.Addr().String())
		return ln, nil
	}
	for _, l := range []struct {
		key   string
		addrs []netip.AddrPort
		conns *[]*net.UDPConn
	}{
		{"collectingProcess.udpCollectors", b.cfg.CollectingProcess.UDPCollectors, &b.udp},
		{"collectingProcess.dtlsCollectors", b.cfg.CollectingProcess.DTLSCollectors, &b.dtls},
	} {
		for _, a := range l.addrs {
			conn, err := lc.ListenPacket(ctx, "udp", a.String())
			if err != nil {
				return listenError(l.key, err)
			}
			b.closers = append(b.closers, conn.Close)
			b.log.Info("listening", "what", l.key, "address", conn.LocalAddr().String())
			*l.conns = append(*l.conns, conn.(*net.UDPConn))
		}
	}
	for _, l := range []struct {
		key       string
		addrs     []netip.AddrPort
		listeners *[]net.Listener
	}{
		{"collectingProcess.tcpCollectors", b.cfg.CollectingProcess.TCPCollectors, &b.tcp},
		{"collectingProcess.tlsCollectors", b.cfg.CollectingProcess.TLSCollectors, &b.tls},
	} {
		for _, a := range l.addrs {
			ln, err := tcp(l.key, a)
			if err != nil {
				return err
			}
			*l.listeners = append(*l.listeners, ln)
		}
	}
	associations := func(key string, ln net.Listener, err error) error {
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%s: %w: load the kernel's SCTP (modprobe sctp), or remove the key", key, err)
		} else if err != nil {
			return listenError(key, err)
		}
		b.closers = append(b.closers, ln.Close)
		b.log.Info("listening", "what", key, "address", ln.Addr().String())
		return nil
	}
	for _, a := range b.cfg.CollectingProcess.SCTPCollectors {
		ln, err := sctp.Listen(a, sctp.Config{})
		if err := associations("collectingProcess.sctpCollectors", ln, err); err != nil {
			return err
		}
		b.sctp = append(b.sctp, ln)
	}
	for _, a := range b.cfg.Server.Listen {
		ln, err := tcp("server.listen", a)
		if err != nil {
			return err
		}
		b.diameter = append(b.diameter, ln)
	}
	for _, a := range b.cfg.Server.SCTPListen {
		ln, err := peer.ListenSCTP(a)
		if err := associations("server.sctpListen", ln, err); err != nil {
			return err
		}
		b.diameter = append(b.diameter, ln)
	}
	for _, a := range b.cfg.Server.TLSListen {
		ln, err := tcp("server.tlsListen", a)
		if err != nil {
			return err
		}
		b.diameterTLS = append(b.diameterTLS, ln)
	}
	if a := b.cfg.Status.Listen; a.IsValid() {
		ln, err := tcp("status.listen", a)
		if err != nil {
			return err
		}
		b.status = ln
	}
	return nil
}

func listenError(key string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %w: stop the process that has the port, or choose another", key, err)
	}
	return fmt.Errorf("%s: %w", key, err)
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
		g.Go(func() error { return b.server.ServeTLS(ctx, ln, b.serverCredentials) })
	}
	g.Go(func() error { <-ctx.Done(); return nil }) // there may be no server
	return g.Wait()
}

// serveControl answers what commands ask of the running daemon. Each file
// that has such a command registers its handlers here.
func (b *bridge) serveControl(ctx context.Context) error {
	b.handleDecisions()
	b.handleAdjust()
	return b.control.Serve(ctx, b.commands)
}

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

// exporters are those of the configuration as the Collecting Process has them.
func exporters(c config.Config) []collect.Exporter {
	var all []collect.Exporter
	for _, e := range c.CollectingProcess.Exporters {
		all = append(all, collect.Exporter{Name: e.Name, Prefixes: prefixes(e.Prefixes), CertificateNames: e.CertificateNames})
	}
	return all
}

func prefixes(list []config.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, p.Prefix)
	}
	return all
}

// settings are what of the configuration can change an accounting record.
func settings(c config.Config) asm.Settings {
	a := c.Accounting
	s := asm.Settings{
		Mode:             asm.Mode(a.Mode),
		OriginHost:       c.Identity.OriginHost,
		DestinationRealm: c.Delivery.DestinationRealm,
		VendorID:         uint32(c.Delivery.VendorID),
		Interval:         a.InterimInterval,
		MinInterim:       a.MinInterim,
		MaxInterim:       a.MaxInterim,
		Linger:           a.Linger,
		MaxSessionAge:    a.MaxSessionAge,
		Wait:             c.Users.Wait,
		Fallback:         c.Users.Fallback,
		ClockTolerance:   a.ClockTolerance,
		DedupWindow:      a.DedupWindow,
		MaxIdentities:    a.MaxIdentities,
		CompareOctets:    int(a.CompareJournal),
		MaxRecord:        a.MaxRecord,
		MaxTotals:        a.MaxTotals,
		InBand:           c.Users.InBand,
		InBandIdle:       c.Users.InBandIdle,
		Networks:         prefixes(c.Users.Networks),
		Split:            asm.Split(c.Users.Split),
		UserTolerance:    c.Users.Tolerance,
		Correct:          c.Users.Correct,
		CorrectOctets:    int(c.Users.CorrectMemory),
		Layer:            a.Layer,
		TimeZone:         a.TimeZone,
		BillingDay:       a.BillingDay,
	}
	for _, e := range c.CollectingProcess.Exporters {
		x := asm.ExporterSettings{Name: e.Name, Sampling: uint32(e.Sampling), Account: asm.AccountPolicy(e.Account), VRF: vrf(e.VRF), Forwards: e.Forwards}
		if len(e.Aliases) > 0 {
			x.Identity = e.Aliases[0]
		}
		for _, n := range e.Interfaces {
			x.Interfaces = append(x.Interfaces, uint32(n))
		}
		if x.Sampling != 0 || x.Identity != "" || x.Account != "" || len(x.Interfaces) > 0 || e.VRF.Element != "" || e.Forwards {
			s.Exporters = append(s.Exporters, x)
		}
	}
	for _, r := range a.Realms {
		s.Realms = append(s.Realms, asm.RealmSettings(r))
	}
	for _, class := range a.Classes {
		out := asm.Class{
			Name: class.Name, Prefixes: prefixes(class.Prefixes),
			Direction: class.Direction, Multicast: class.Multicast, Internal: class.Internal, ZeroRated: class.ZeroRated,
		}
		for _, n := range class.DSCP {
			out.DSCP = append(out.DSCP, uint8(n))
		}
		for _, n := range class.Protocols {
			out.Protocols = append(out.Protocols, uint8(n))
		}
		for _, p := range class.Ports {
			out.Ports = append(out.Ports, asm.PortRange(p))
		}
		s.Classes = append(s.Classes, out)
	}
	return s
}

// vrf is how an exporter's records tell address spaces apart, nil for not.
func vrf(v config.VRF) *asm.VRFSettings {
	if v.Element == "" {
		return nil
	}
	s := &asm.VRFSettings{Element: v.Element, Names: make(map[string]string)}
	for _, n := range v.Names {
		s.Names[n.Value] = n.Name
	}
	return s
}
