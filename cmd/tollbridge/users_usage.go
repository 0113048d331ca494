package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/ipfix/ack"
	"tollbridge/spool"
)

// pullTimeout bounds how long exporters, and the pipeline behind them, may
// take to bring what is in the flow caches now.
const pullTimeout = 30 * time.Second

func newUsersUsage(state *stateFlags) *cobra.Command {
	var now bool
	var of []string
	cmd := &cobra.Command{
		Use:   "usage [USER]",
		Short: "Show what users have used in their present sessions",
		Long: `Usage sums what the sessions of a user, or of all, have used: those that are
open, and those that were stopped lately and are kept for late flows.

Flows that last are still in the exporters' flow caches. With --now the running
daemon asks the connected exporters with acknowledged export for them, and
waits until they are accounted: the usage is then exact for the time that is
shown, but for what other exporters have yet to send. Exporters are asked for
the flows of the addresses that USER holds or held; for all, where that can't
be told, as behind a NAT that reports what it does. --of names others.`,
		Example: `  tollbridge users usage
  tollbridge users usage --now alice
  tollbridge users usage --now --of 192.0.2.7,2001:db8:7::/48
  tollbridge users usage --now -o json alice`,
		Args: cobra.MaximumNArgs(1),
	}
	f := listing.FormatFlag(cmd)
	cmd.Flags().BoolVar(&now, "now", false, "have exporters export their flow caches first")
	cmd.Flags().StringSliceVar(&of, "of", nil, "with --now: only flows of these addresses or prefixes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		user := strings.Join(args, "")
		if len(of) > 0 && !now {
			return errors.New("users usage: --of is of no use without --now")
		}
		var pulled pullResult
		if now {
			dir, err := state.existing()
			if err != nil {
				return err
			}
			request := pullRequest{User: user}
			for _, text := range of {
				p, err := prefixOrAddress(text)
				if err != nil {
					return fmt.Errorf("users usage: --of: %w", err)
				}
				request.Of = append(request.Of, p)
			}
			if err := control.Call(cmd.Context(), dir, "pull", request, &pulled); err != nil {
				return fmt.Errorf("users usage --now: %w", err)
			}
			for _, e := range pulled.Exporters {
				if e.Problem != "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s (%s): %s\n", e.Exporter, e.Remote, e.Problem)
				}
			}
			if len(pulled.Exporters) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no exporter with acknowledged export is connected that can be asked")
			}
		}
		s, err := state.open()
		if err != nil {
			return err
		}
		defer s.Close()
		t, err := usageTable(cmd.Context(), s, user, pulled.Exact)
		if err != nil {
			return err
		}
		return t.Print(cmd.OutOrStdout(), *f)
	}
	return cmd
}

// prefixOrAddress reads either.
func prefixOrAddress(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// A userUsage is a line of the listing.
type userUsage struct {
	User     string    `json:"user"`
	Sessions int       `json:"sessions"`
	Since    time.Time `json:"since"`
	Exact    time.Time `json:"exact,omitzero"` // up to when flow caches were asked for
	acct.Usage
}

// usageTable sums the sessions of one user, or of all where user is "".
func usageTable(ctx context.Context, s *spool.Spool, user string, exact time.Time) (*listing.Table, error) {
	sums := make(map[string]*userUsage)
	const page = 4096
	for after := uint64(0); ; {
		sessions, err := s.Sessions(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, x := range sessions {
			after = x.ID
			if user != "" && x.User != user {
				continue
			}
			u := sums[x.User]
			if u == nil {
				u = &userUsage{User: x.User, Since: time.Unix(x.Started, 0).UTC(), Exact: exact}
				sums[x.User] = u
			}
			u.Sessions++
			u.Usage = u.Usage.Plus(x.Usage)
			if at := time.Unix(x.Started, 0).UTC(); at.Before(u.Since) {
				u.Since = at
			}
		}
		if len(sessions) < page {
			break
		}
	}
	all := make([]userUsage, 0, len(sums))
	for _, u := range sums {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b userUsage) int { return cmp.Compare(a.User, b.User) })
	t := &listing.Table{Columns: []string{"user", "input_octets", "output_octets", "input_packets", "output_packets", "sessions", "since", "exact_for"}, Value: all}
	for _, u := range all {
		until := "-"
		if !u.Exact.IsZero() {
			until = u.Exact.Format(time.RFC3339Nano)
		}
		t.Add(u.User, u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets, u.Sessions, u.Since.Format(time.RFC3339), until)
	}
	return t, nil
}

// A pullRequest asks the daemon to have flow caches exported.
type pullRequest struct {
	Of   []netip.Prefix `json:"of"`   // addresses; none for those of User
	User string         `json:"user"` // "" for all
}

// A pullResult says what came of it, once all of it is in the books.
type pullResult struct {
	Exact     time.Time      `json:"exact,omitzero"` // the earliest that an exporter gave; zero if none answered
	Exporters []pullExporter `json:"exporters"`
}

type pullExporter struct {
	Exporter string    `json:"exporter"`
	Remote   string    `json:"remote"`
	Time     time.Time `json:"time,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}

// pull has the flow caches of all connected exporters that can be asked
// exported, and waits until that is in a checkpoint.
func (b *bridge) pull(ctx context.Context, r pullRequest) (pullResult, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if len(r.Of) > 0 || r.User == "" {
		return b.pullOf(ctx, r.Of)
	}
	asked, err := b.addresses(ctx, r.User)
	if err != nil {
		return pullResult{}, err
	}
	result, err := b.pullOf(ctx, asked)
	if err != nil || len(asked) == 0 {
		return result, err
	}
	// What the user got meanwhile was not asked for.
	now, err := b.addresses(ctx, r.User)
	if err != nil || len(now) > 0 && !slices.ContainsFunc(now, func(p netip.Prefix) bool { return !slices.Contains(asked, p) }) {
		return result, err
	}
	return b.pullOf(ctx, nil)
}

// errBehind says that something is in the journal and not in a checkpoint.
var errBehind = errors.New("the pipeline is behind, try again")

// addresses is asm.Addresses as of now.
func (b *bridge) addresses(ctx context.Context, user string) ([]netip.Prefix, error) {
	if err := b.runner.Wait(ctx, b.journal.Appended()); err != nil {
		return nil, fmt.Errorf("which addresses the user has is not known yet: %w", errBehind)
	}
	return asm.Addresses(ctx, b.spool, user)
}

// pullOf is pull of addresses, none for all.
func (b *bridge) pullOf(ctx context.Context, of []netip.Prefix) (pullResult, error) {
	if len(of) == 0 {
		of = []netip.Prefix{ack.All}
	}
	result := pullResult{Exporters: []pullExporter{}}
	position := uint64(0)
	for _, p := range b.collector.Pull(ctx, of) {
		e := pullExporter{Exporter: p.Exporter, Remote: p.Remote.String(), Time: p.Time}
		switch {
		case p.Err != nil:
			e.Problem = p.Err.Error()
		case p.Result == ack.Refused:
			e.Problem = "refuses"
		case p.Result == ack.Failed:
			e.Problem = "could not export its flow cache"
		default:
			if result.Exact.IsZero() || p.Time.Before(result.Exact) {
				result.Exact = p.Time
			}
			position = max(position, p.Position)
		}
		result.Exporters = append(result.Exporters, e)
	}
	if slices.ContainsFunc(result.Exporters, func(e pullExporter) bool { return e.Problem != "" }) {
		result.Exact = time.Time{} // what one of them still has is unknown
	}
	if err := b.runner.Wait(ctx, position); err != nil {
		return result, fmt.Errorf("what the exporters sent is not accounted yet: %w", errBehind)
	}
	return result, nil
}
