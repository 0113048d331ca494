package userscmd

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

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newUsage(where *state.Flags) *cobra.Command {
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
		var pulled control.PullResult
		if now {
			dir, err := where.Existing()
			if err != nil {
				return err
			}
			request := control.PullRequest{User: user}
			for _, text := range of {
				p, err := prefixOrAddress(text)
				if err != nil {
					return fmt.Errorf("users usage: --of: %w", err)
				}
				request.Of = append(request.Of, p)
			}
			if err := control.Call(cmd.Context(), dir, control.Pull, request, &pulled); err != nil {
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
		s, err := where.Open()
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

// A Usage is a line of the listing.
type Usage struct {
	User     string    `json:"user"`
	Sessions int       `json:"sessions"`
	Since    time.Time `json:"since"`
	Exact    time.Time `json:"exact,omitzero"` // up to when flow caches were asked for
	acct.Usage
}

// usageTable sums the sessions of one user, or of all where user is "".
func usageTable(ctx context.Context, s *spool.Spool, user string, exact time.Time) (*listing.Table, error) {
	sums := make(map[string]*Usage)
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
				u = &Usage{User: x.User, Since: time.Unix(x.Started, 0).UTC(), Exact: exact}
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
	all := make([]Usage, 0, len(sums))
	for _, u := range sums {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b Usage) int { return cmp.Compare(a.User, b.User) })
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
