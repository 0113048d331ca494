package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/meter"
)

// closeTimeout bounds how long a meter waits for its collector to have read
// everything.
const closeTimeout = 10 * time.Second

func newMeter() *cobra.Command {
	var (
		files        []string
		iface        string
		collectors   string
		duplicate    bool
		transport    string
		udp          bool
		secure       config.TLS
		serverName   string
		streams      int
		lifetime     time.Duration
		refresh      time.Duration
		reconnect    time.Duration
		maxReconnect time.Duration
		connect      time.Duration
		domain       uint32
		active, idle time.Duration
		spool        exportSpool
	)
	cmd := &cobra.Command{
		Use:   "meter {-r FILE... | -i INTERFACE}",
		Short: "Measure packets and export flow records",
		Long: `Meter sorts packets into flows (addresses, ports, protocol, DSCP) and exports
a record of each over IPFIX: of capture files, pcap or pcapng, or of a live
interface until it is interrupted. Octets are those of the IP layer.

Of several collectors the first that can be reached is exported to, with
--duplicate each; one that can't be reached then misses what does not fit the
buffer. Over tls and dtls the collector's certificate must be of the host that
--to names, or of --server-name, and ours is shown to it; files that change,
which a live meter looks for every 10 seconds and on SIGHUP, count from the
next handshake on.

Over tcp and tls the meter ends once the collector has all in its journal.
With --acknowledged what is exported is kept in --spool until the collector
says that it is on its disk: it is sent again after a lost connection, to a
backup, or by the next meter that is started on that directory. A collector
that does not know acknowledged export decodes the same records, and never
says so.`,
		Example: `  tollbridge meter -r traffic.pcap
  tollbridge meter -i eth0 --to 127.0.0.1:4739
  tollbridge meter -i eth0 --transport tls --to collector.isp.example:4740,backup.isp.example:4740 \
    --cert meter.pem --key meter-key.pem --ca isp-ca.pem
  tollbridge meter -i eth0 --transport sctp --streams 4 --to 192.0.2.1:4739
  tollbridge meter -i eth0 --acknowledged --spool /var/lib/tollbridge/meter --when-full drop`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "read", "r", nil, "capture files to read")
	flags.StringVarP(&iface, "interface", "i", "", "interface to observe (needs root or CAP_NET_RAW)")
	flags.StringVar(&collectors, "to", "127.0.0.1:4739", "address and port of the collector, then of backups, with commas between")
	flags.BoolVar(&duplicate, "duplicate", false, "export every record to each collector")
	flags.StringVar(&transport, "transport", "tcp", "udp, tcp, sctp, tls or dtls")
	flags.BoolVar(&udp, "udp", false, "short for --transport udp")
	flags.StringVar(&secure.Certificate, "cert", "", "our certificate for tls and dtls, a PEM file")
	flags.StringVar(&secure.Key, "key", "", "private key of --cert")
	flags.StringVar(&secure.CA, "ca", "", "who may vouch for collectors")
	flags.StringVar(&serverName, "server-name", "", "whom the collector's certificate must be of; by default the host of --to")
	flags.IntVar(&streams, "streams", 1, "sctp streams that carry records, in turn")
	flags.DurationVar(&lifetime, "lifetime", 0, "let sctp give up a message after so long (PR-SCTP); not for what is billed from")
	flags.DurationVar(&refresh, "template-refresh", 10*time.Minute, "send templates again this often over udp and dtls")
	flags.DurationVar(&reconnect, "reconnect", time.Minute, "least time between attempts to connect to a collector; it doubles while they fail")
	flags.DurationVar(&maxReconnect, "max-reconnect", 0, "most time between attempts to connect; by default ten times --reconnect")
	flags.DurationVar(&connect, "connect-timeout", 30*time.Second, "how long an attempt to connect may take")
	flags.Uint32Var(&domain, "domain", 1, "Observation Domain ID")
	spool.flags(cmd)
	flags.DurationVar(&active, "active-timeout", 60*time.Second, "a long flow is exported this often")
	flags.DurationVar(&idle, "idle-timeout", 15*time.Second, "a silent flow ends after this")
	cmd.MarkFlagsMutuallyExclusive("read", "interface")
	cmd.MarkFlagsMutuallyExclusive("udp", "transport")
	cmd.MarkFlagsRequiredTogether("cert", "key", "ca")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if len(files) == 0 && iface == "" {
			return errors.New("meter: what to measure is not said: -r FILE or -i INTERFACE")
		}
		log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		cfg := export.Config{Domain: domain, Reconnect: reconnect, MaxReconnect: maxReconnect, ConnectTimeout: connect, Log: log}
		credentials := credentials{key: "--cert, --key, --ca", log: log}
		if udp {
			transport = "udp"
		}
		if cfg.Transport, err = exportOver(transport); err != nil {
			return err
		}
		if secure != (config.TLS{}) {
			credentials.files = secure
			certificate, ca, err := credentials.load()
			if err != nil {
				return fmt.Errorf("meter: %w", err)
			}
			cfg.TLS = &export.TLS{Certificate: certificate, RootCAs: ca, ServerName: serverName}
		} else if cfg.Transport == ipfix.TLS || cfg.Transport == ipfix.DTLS {
			return fmt.Errorf("meter: --transport %v: needs --cert, --key and --ca", cfg.Transport)
		} else if serverName != "" {
			return errors.New("meter: --server-name: is of no use without --cert, --key and --ca")
		}
		if cfg.Transport == ipfix.SCTP {
			cfg.Streams, cfg.Lifetime = streams, lifetime
		} else if flags.Changed("streams") || flags.Changed("lifetime") {
			return errors.New("meter: --streams and --lifetime: are for --transport sctp alone")
		}
		switch {
		case cfg.Transport.Reliable() && flags.Changed("template-refresh"):
			return errors.New("meter: --template-refresh: is for --transport udp and dtls alone: over others a template is sent once")
		case refresh <= 0:
			return fmt.Errorf("meter: --template-refresh: %v is not more than 0", refresh)
		case connect <= 0:
			return fmt.Errorf("meter: --connect-timeout: %v is not more than 0", connect)
		case reconnect <= 0:
			return fmt.Errorf("meter: --reconnect: %v is not more than 0", reconnect)
		case maxReconnect != 0 && maxReconnect < reconnect:
			return fmt.Errorf("meter: --max-reconnect: %v is less than --reconnect, %v", maxReconnect, reconnect)
		}
		cfg.TemplateRefresh = refresh
		to := strings.Split(collectors, ",")
		for _, address := range to {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return fmt.Errorf("meter: --to %s: %w", address, err)
			}
		}
		var m *meter.Meter
		pull := func(ctx context.Context, of netip.Prefix) (time.Time, error) { return m.Pull(ctx, of) }
		exporter, closeSpools, err := newExport(cfg, to, duplicate, &spool, pull)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeSpools()) }()
		credentials.use = func(certificate tls.Certificate, ca *x509.CertPool) error {
			var errs []error
			for _, p := range exporter {
				errs = append(errs, p.SetTLS(export.TLS{Certificate: certificate, RootCAs: ca, ServerName: serverName}))
			}
			return errors.Join(errs...)
		}
		m, err = meter.New(meter.Config{Exporter: exporter, ActiveTimeout: active, IdleTimeout: idle, Log: log})
		if err != nil {
			return err
		}
		err = meterAndExport(cmd.Context(), m, exporter, func(ctx context.Context) error {
			if iface != "" {
				g, ctx := errgroup.WithContext(ctx)
				g.Go(func() error { return credentials.watch(ctx) })
				g.Go(func() error { return m.Live(ctx, iface) })
				return g.Wait()
			}
			for _, f := range files {
				if err := readCapture(ctx, cmd, m, f); err != nil {
					return err
				}
			}
			return nil
		})
		s := m.Stats()
		if why := unmetered(s); why != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "not metered: %s\n", why)
		}
		for i, p := range exporter {
			where := ""
			if len(exporter) > 1 {
				where = " to " + to[i]
			}
			e := p.Stats()
			fmt.Fprintf(cmd.OutOrStdout(), "%d packets and %d octets in %d flow records, %d messages sent%s\n",
				s.Metered, s.Octets, e.Records, e.Messages, where)
			if lifetime > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%d messages given up by sctp%s\n", e.Abandoned, where)
			}
			if spool.wanted {
				fmt.Fprintf(cmd.OutOrStdout(), "%d messages sent again, %d records dropped, %d messages wait for their acknowledgement%s\n",
					e.Resent, e.LostRecords, e.QueuedMessages, where)
			}
		}
		return err
	}
	return cmd
}

// unmetered says which packets are in no flow, "" if all are in one.
func unmetered(s meter.Stats) string {
	var causes []string
	for _, c := range []struct {
		packets uint64
		are     string
	}{{s.NotIP, "not IP"}, {s.UnknownLink, "of an unknown link type"}, {s.Malformed.Sum(), "malformed"}, {s.Dropped, "of flows that could not be exported"}} {
		if c.packets > 0 {
			causes = append(causes, fmt.Sprintf("%d packets that are %s", c.packets, c.are))
		}
	}
	return strings.Join(causes, ", ")
}

// exportOver returns the transport of a name.
func exportOver(name string) (ipfix.Transport, error) {
	for _, t := range []ipfix.Transport{ipfix.UDP, ipfix.TCP, ipfix.SCTP, ipfix.TLS, ipfix.DTLS} {
		if t.String() == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("meter: --transport %s: is not one of udp, tcp, sctp, tls, dtls", name)
}

// A pullFunc exports what the flow cache has of addresses.
type pullFunc func(context.Context, netip.Prefix) (time.Time, error)

// newExport returns an Exporting Process for the first collector, with the
// others as backups, or one for each. What it opened is closed by the function
// that it returns, when the Processes have ended.
func newExport(cfg export.Config, to []string, duplicate bool, spool *exportSpool, pull pullFunc) (all export.Duplicate, closeSpools func() error, err error) {
	var opened []io.Closer
	closeAll := func() error {
		var errs []error
		for _, c := range opened {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	add := func(cfg export.Config, name string) error {
		b, err := spool.open(&cfg, name, pull)
		if err != nil {
			return err
		}
		if b != nil {
			opened = append(opened, b)
		}
		p, err := export.New(cfg)
		all = append(all, p)
		return err
	}
	if !duplicate {
		cfg.Address, cfg.Backups = to[0], to[1:]
		err := add(cfg, "")
		return all, closeAll, err
	}
	cfg.DropWhenFull = !spool.wanted
	for _, cfg.Address = range to {
		if err := add(cfg, cfg.Address); err != nil {
			return nil, nil, err
		}
	}
	return all, closeAll, nil
}

// An exporter is an Exporting Process, or several.
type exporter interface {
	Run(context.Context) error
	Close(context.Context) error
}

// meterAndExport runs the Exporting Process while measure feeds the meter,
// then exports what the flow cache still holds and waits until the collector
// has read it.
func meterAndExport(ctx context.Context, m *meter.Meter, e exporter, measure func(context.Context) error) error {
	g, runCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	g.Go(func() error { return e.Run(runCtx) })
	err := measure(ctx)
	// What was measured is exported even where the measuring was interrupted.
	closeCtx, cancel := context.WithTimeout(runCtx, closeTimeout)
	defer cancel()
	return errors.Join(err, m.Flush(closeCtx), e.Close(closeCtx), g.Wait())
}

func readCapture(ctx context.Context, cmd *cobra.Command, m *meter.Meter, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	defer f.Close()
	size := int64(-1)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	bar := terminal.NewProgress(cmd.ErrOrStderr(), name, size)
	defer bar.Finish()                                                 //nolint:errcheck // a bar that can't be drawn harms nothing
	err = m.ReadFile(ctx, f, func(octets int64) { bar.Set64(octets) }) //nolint:errcheck // likewise
	if err != nil {
		return fmt.Errorf("meter: %s: %w", name, err)
	}
	return nil
}
