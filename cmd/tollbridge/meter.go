package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
		to           string
		udp          bool
		domain       uint32
		active, idle time.Duration
	)
	cmd := &cobra.Command{
		Use:   "meter {-r FILE... | -i INTERFACE}",
		Short: "Measure packets and export flow records",
		Long: `Meter sorts packets into flows (addresses, ports, protocol, DSCP) and exports
a record of each over IPFIX: of capture files, pcap or pcapng, or of a live
interface until it is interrupted. Octets are those of the IP layer.`,
		Example: `  tollbridge meter -r traffic.pcap
  tollbridge meter -i eth0 --to 127.0.0.1:4739`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "read", "r", nil, "capture files to read")
	flags.StringVarP(&iface, "interface", "i", "", "interface to observe (needs root or CAP_NET_RAW)")
	flags.StringVar(&to, "to", "127.0.0.1:4739", "address and port of the collector")
	flags.BoolVar(&udp, "udp", false, "export over UDP instead of TCP")
	flags.Uint32Var(&domain, "domain", 1, "Observation Domain ID")
	flags.DurationVar(&active, "active-timeout", 60*time.Second, "a long flow is exported this often")
	flags.DurationVar(&idle, "idle-timeout", 15*time.Second, "a silent flow ends after this")
	cmd.MarkFlagsMutuallyExclusive("read", "interface")
	cmd.MarkFlagsOneRequired("read", "interface")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		transport := ipfix.TCP
		if udp {
			transport = ipfix.UDP
		}
		exporter, err := export.New(export.Config{Transport: transport, Address: to, Domain: domain, Reconnect: 5 * time.Second, Log: log})
		if err != nil {
			return err
		}
		m, err := meter.New(meter.Config{Exporter: exporter, ActiveTimeout: active, IdleTimeout: idle, Log: log})
		if err != nil {
			return err
		}
		err = meterAndExport(cmd.Context(), m, exporter, func(ctx context.Context) error {
			if iface != "" {
				return m.Live(ctx, iface)
			}
			for _, f := range files {
				if err := readCapture(ctx, cmd, m, f); err != nil {
					return err
				}
			}
			return nil
		})
		s, e := m.Stats(), exporter.Stats()
		fmt.Fprintf(cmd.OutOrStdout(), "%d packets and %d octets in %d flow records, %d messages sent\n",
			s.Packets, s.Octets, e.Records, e.Messages)
		return err
	}
	return cmd
}

// meterAndExport runs the Exporting Process while measure feeds the meter,
// then exports what the flow cache still holds and waits until the collector
// has read it.
func meterAndExport(ctx context.Context, m *meter.Meter, e *export.Process, measure func(context.Context) error) error {
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
	bar := newProgress(cmd.ErrOrStderr(), name, size)
	defer bar.Finish()                                                 //nolint:errcheck // a bar that can't be drawn harms nothing
	err = m.ReadFile(ctx, f, func(octets int64) { bar.Set64(octets) }) //nolint:errcheck // likewise
	if err != nil {
		return fmt.Errorf("meter: %s: %w", name, err)
	}
	return nil
}
