package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/cmd/tollbridge/internal/auditcmd"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/meter"
	"tollbridge/spool"
)

func newDemo() *cobra.Command {
	d := demo{replay: 4 * time.Second}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Do the whole job once, on this machine, in seconds",
		Long: `Demo starts an AAA server and a bridge on free loopback ports, in a temporary
directory. A meter reads a bundled capture of real traffic of three subscribers
and exports IPFIX to the bridge, which maps it to users and delivers Diameter
accounting records to the server. When every record is acknowledged, demo
prints what each user was billed, the books, and how it compares with what
tshark counted in the capture. The exit status is 1 if anything is off.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&d.keep, "keep", false, "leave it running, and print commands to look at it")
	flags.StringVar(&d.dir, "data", "", "directory to work in, kept afterwards (default a temporary one)")
	flags.DurationVar(&d.replay, "replay", d.replay, "how long to take over the capture")
	flags.BoolVarP(&d.verbose, "verbose", "v", false, "show the daemons' log")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return d.run(cmd) }
	return cmd
}

// A demo is one run of the main job.
type demo struct {
	dir     string
	keep    bool
	verbose bool
	replay  time.Duration

	out, errOut io.Writer
	bridge, aaa *bridge
}

// demoTimeout bounds how long records may take to be acknowledged.
const demoTimeout = 30 * time.Second

func (d *demo) run(cmd *cobra.Command) error {
	d.out, d.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if d.dir == "" {
		dir, err := os.MkdirTemp("", "tollbridge-demo-")
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(dir)
		d.dir = dir
	}
	if err := d.open(); err != nil {
		return err
	}
	defer d.aaa.Close()
	defer d.bridge.Close()
	// The daemons outlive an interrupt until they have been stopped in order.
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer stopServer()
	bridgeCtx, stopBridge := context.WithCancel(serverCtx)
	defer stopBridge()
	var servers, bridges errgroup.Group
	servers.Go(func() error { return d.aaa.Run(serverCtx) })
	bridges.Go(func() error { return d.bridge.Run(bridgeCtx) })

	err := d.work(cmd.Context())
	if err == nil {
		err = d.report(cmd.Context())
	}
	if d.keep && !errors.Is(err, context.Canceled) {
		d.printCommands()
		<-cmd.Context().Done()
	}
	stopBridge()
	err = errors.Join(err, bridges.Wait())
	stopServer()
	return errors.Join(err, servers.Wait())
}

// open opens the AAA server and the bridge that delivers to it.
func (d *demo) open() error {
	log := slog.New(slog.DiscardHandler)
	if d.verbose {
		log = slog.New(slog.NewTextHandler(d.errOut, nil))
	}
	free := netip.MustParseAddrPort("127.0.0.1:0")

	aaa := config.Default()
	aaa.Data = filepath.Join(d.dir, "aaa")
	aaa.Identity.OriginHost = "unused.aaa.example"
	aaa.Identity.OriginRealm = "aaa.example"
	aaa.CollectingProcess = config.CollectingProcess{}
	aaa.Server = config.Server{Listen: []netip.AddrPort{free}, OriginHost: "server.aaa.example"}
	aaa.Status.Listen = netip.AddrPort{}
	var err error
	if d.aaa, err = newBridge(aaa, log.With("daemon", "aaa")); err != nil {
		return err
	}

	users := filepath.Join(d.dir, "users.csv")
	if err := os.WriteFile(users, demodata.Users, 0o600); err != nil {
		return errors.Join(fmt.Errorf("demo: %w", err), d.aaa.Close())
	}
	c := config.Default()
	c.Data = filepath.Join(d.dir, "bridge")
	c.Identity = config.Identity{OriginHost: "bridge.isp.example", OriginRealm: "isp.example"}
	c.CollectingProcess = config.CollectingProcess{TCPCollectors: []netip.AddrPort{free}}
	c.Users.Files = []string{users}
	c.Accounting.InterimInterval = time.Second
	c.Accounting.Linger = 1500 * time.Millisecond
	c.Accounting.Classes = []config.Class{{Name: "expedited", DSCP: []int{46}}}
	c.Delivery.DestinationRealm = "aaa.example"
	c.Delivery.Peers = []config.Peer{{
		Host:    "server.aaa.example",
		Address: netip.MustParseAddrPort(d.aaa.diameter[0].Addr().String()),
	}}
	c.Server.Listen = nil
	c.Spool.Checkpoint = 100 * time.Millisecond
	c.Status.Listen = free
	if d.bridge, err = newBridge(c, log.With("daemon", "bridge")); err != nil {
		return errors.Join(err, d.aaa.Close())
	}
	return nil
}

// work meters the capture and waits until every record of it is acknowledged.
func (d *demo) work(ctx context.Context) error {
	exporter, err := export.New(export.Config{
		Transport: ipfix.TCP, Address: d.bridge.tcp[0].Addr().String(), Domain: 1,
		Linger: 100 * time.Millisecond, Reconnect: time.Second,
	})
	if err != nil {
		return err
	}
	m, err := meter.New(meter.Config{Exporter: exporter, ActiveTimeout: 3 * time.Second, IdleTimeout: 2 * time.Second})
	if err != nil {
		return err
	}
	bar := terminal.NewProgress(d.errOut, "metering the capture", int64(len(demodata.Capture)))
	capture := &pacedReader{r: bytes.NewReader(demodata.Capture), size: len(demodata.Capture), over: d.replay, start: time.Now()}
	err = meterAndExport(ctx, m, exporter, func(ctx context.Context) error {
		return m.ReadFile(ctx, capture, func(octets int64) { bar.Set64(octets) }) //nolint:errcheck // a bar that can't be drawn harms nothing
	})
	bar.Finish() //nolint:errcheck // likewise
	if err != nil {
		return err
	}
	s := m.Stats()
	fmt.Fprintf(d.out, "metered %d packets into %d flow records, exported over IPFIX/TCP\n\n", s.Metered, exporter.Stats().Records)
	return d.settled(ctx, exporter.Stats().Records)
}

// settled waits until records flow records have been received and all that is
// accounted of them is acknowledged.
func (d *demo) settled(ctx context.Context, records uint64) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	bar := terminal.NewProgress(d.errOut, "waiting for answers", -1)
	defer bar.Finish() //nolint:errcheck // a bar that can't be drawn harms nothing
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		// In this order: the records of the sessions that have ended are in
		// the outbox only after the checkpoint.
		stats := d.bridge.runner.Stats()
		committed := d.bridge.runner.Committed() >= stats.Position
		outbox := d.bridge.spool.Outbox().Stats()
		books, err := d.bridge.spool.Audit(ctx)
		if err != nil {
			return err
		}
		t := books.Total
		if t.Received.Records == records && stats.Sessions == 0 && committed && t.Open.IsZero() && outbox.Pending == 0 {
			return nil
		}
		bar.Add(1) //nolint:errcheck // likewise
		select {
		case <-ctx.Done():
			return fmt.Errorf("demo: after %s %d of %d flow records are received, %d sessions open, %d accounting records unacknowledged: %w",
				demoTimeout, t.Received.Records, records, stats.Sessions, outbox.Pending, ctx.Err())
		case <-look.C:
		}
	}
}

// report prints what each user was billed, the books, and the comparison with
// the truth. Its error says what is off.
func (d *demo) report(ctx context.Context) error {
	truth, err := parseTruth(demodata.Truth)
	if err != nil {
		return err
	}
	totals, err := d.aaa.cdrs.Totals(ctx)
	if err != nil {
		return err
	}
	cdrs, err := d.aaa.cdrs.List(ctx, spool.CDRFilter{})
	if err != nil {
		return err
	}
	books, err := d.bridge.spool.Audit(ctx)
	if err != nil {
		return err
	}

	var wrong []string
	billed := listing.Table{Columns: []string{"user", "input_octets", "input_packets", "output_octets", "output_packets", "records", "capture", "session_id"}}
	seen := map[string]bool{}
	for _, u := range totals {
		seen[u.User] = true
		verdict := "equal"
		if u.Usage != truth[u.User] {
			verdict = "DIFFERS"
			wrong = append(wrong, fmt.Sprintf("%s was billed %+v, but tshark counted %+v", u.User, u.Usage, truth[u.User]))
		}
		billed.Add(u.User, u.Usage.InputOctets, u.Usage.InputPackets, u.Usage.OutputOctets, u.Usage.OutputPackets,
			u.Records, verdict, strings.Join(sessionsOf(cdrs, u.User), " "))
	}
	for user := range truth {
		if user != nobody && !seen[user] {
			wrong = append(wrong, fmt.Sprintf("%s was not billed at all", user))
		}
	}
	if err := billed.Print(d.out, "table"); err != nil {
		return err
	}
	if got, want := books.Total.Suspended.Octets, truth[nobody].InputOctets; got != want {
		wrong = append(wrong, fmt.Sprintf("%d octets are suspended as nobody's, but tshark counted %d", got, want))
	}

	fmt.Fprintln(d.out)
	sums := listing.Table{Columns: []string{"books", "records", "octets", "packets"}}
	for _, a := range auditcmd.Amounts(books.Total) {
		sums.Add(a.Name, a.Records, a.Octets, a.Packets)
	}
	if err := sums.Print(d.out, "table"); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	for _, w := range wrong {
		fmt.Fprintf(d.out, "wrong: %s\n", w)
	}
	if len(wrong) == 0 {
		fmt.Fprintf(d.out, "every user's octets and packets equal what tshark counted in the capture\n")
	}
	fmt.Fprintln(d.out, auditcmd.Line(books))
	if !books.Balanced || len(wrong) > 0 {
		return terminal.ErrTold
	}
	return nil
}

// sessionsOf returns the Session-Ids of a user's CDRs in order of arrival.
func sessionsOf(cdrs []spool.StoredCDR, user string) []string {
	var ids []string
	seen := map[string]bool{}
	for _, c := range cdrs {
		if c.User == user && !seen[c.SessionID] {
			seen[c.SessionID] = true
			ids = append(ids, c.SessionID)
		}
	}
	return ids
}

func (d *demo) printCommands() {
	fmt.Fprintf(d.errOut, `
It goes on until you interrupt it. Look at it with

  tollbridge audit --data %[1]s
  tollbridge spool ls --data %[1]s
  tollbridge spool suspense --data %[1]s
  tollbridge spool cdrs --data %[2]s
  tollbridge meter -r FILE --to %[3]s
  curl http://%[4]s/metrics

`, d.bridge.cfg.Data, d.aaa.cfg.Data, d.bridge.tcp[0].Addr(), d.bridge.status.Addr())
}

// nobody is the user of the truth under whom packets without any are.
const nobody = "-"

// parseTruth reads what tshark counted: user, input octets and packets,
// output octets and packets.
func parseTruth(data []byte) (map[string]acct.Usage, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil || len(rows) < 2 {
		return nil, fmt.Errorf("demo: truth: %d rows: %w", len(rows), err)
	}
	truth := map[string]acct.Usage{}
	for _, row := range rows[1:] {
		var n [4]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(row[i+1], 10, 64); err != nil {
				return nil, fmt.Errorf("demo: truth: %w", err)
			}
		}
		truth[row[0]] = acct.Usage{InputOctets: n[0], InputPackets: n[1], OutputOctets: n[2], OutputPackets: n[3]}
	}
	return truth, nil
}

// A pacedReader spreads the reading of size octets over a time, so that a
// capture is metered in a few intervals and not in one.
type pacedReader struct {
	r     io.Reader
	size  int
	over  time.Duration
	start time.Time
	read  int
}

func (p *pacedReader) Read(b []byte) (int, error) {
	due := p.start.Add(time.Duration(float64(p.over) * float64(p.read) / float64(p.size)))
	time.Sleep(time.Until(due))
	n, err := p.r.Read(b[:min(len(b), max(p.size/100, 1))])
	p.read += n
	return n, err
}
