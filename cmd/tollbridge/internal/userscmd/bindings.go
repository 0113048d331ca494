package userscmd

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
)

// holding is a binding as listings show it.
type holding struct {
	Verdict string    `json:"verdict,omitempty"`
	Prefix  string    `json:"prefix"`
	Ports   string    `json:"ports,omitempty"`
	VRF     string    `json:"vrf,omitempty"`
	User    string    `json:"user"`
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Source  string    `json:"source"`
	NAS     string    `json:"nas,omitempty"`
	Session string    `json:"session,omitempty"`
	State   string    `json:"state"`
	Realm   string    `json:"realm,omitempty"`
	Class   string    `json:"class,omitempty"`
	Zone    string    `json:"time_zone,omitempty"`
	Why     string    `json:"why,omitempty"`
}

// Columns of holdings.
var holdingColumns = []string{"prefix", "ports", "vrf", "user", "from", "until", "source", "nas", "session", "state"}

// current reports whether h holds now or is yet to.
func current(h *users.Holder, now int64) bool {
	return !h.Removed() && (h.From > now || h.Until == 0 || h.Until > now)
}

func newHolding(h *users.Holder, now int64) holding {
	b := h.Binding()
	state := "open"
	switch {
	case h.Removed():
		state = "removed"
	case h.From > now:
		state = "to come"
	case !current(h, now) && h.ID() != "" && !h.Ended():
		state = "supposed over"
	case !current(h, now):
		state = "over"
	}
	return holding{
		Prefix: b.Prefix.String(), Ports: string(b.Ports), VRF: b.VRF, User: b.User, From: b.From, Until: b.Until,
		Source: h.Source(), NAS: h.NAS(), Session: h.ID(), State: state, Realm: b.Realm, Class: b.Class, Zone: b.TimeZone,
	}
}

func (h *holding) cells() []string {
	return []string{h.Prefix, h.Ports, h.VRF, h.User, utcMoment(h.From), utcMoment(h.Until), h.Source, h.NAS, h.Session, h.State}
}

// utcMoment prints a time, nothing for ever.
func utcMoment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func newLs(where *state.Flags) *cobra.Command {
	var all bool
	var source, vrf, within string
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List who holds which address",
		Long: `Ls lists the bindings that the pipeline goes by, as of its latest checkpoint:
those that hold now or have yet to begin, and with --all those that are over and
kept for late flows. It reads beside a running daemon, and as it prints: a
million bindings need no more memory than the longest list among them.`,
		Example: `  tollbridge users ls
  tollbridge users ls --within 2001:db8::/32 --limit 20
  tollbridge users ls --all --source radius -o csv > bindings.csv`,
		Args: cobra.NoArgs,
	}
	f := listing.FormatFlag(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also what is over")
	cmd.Flags().StringVar(&source, "source", "", "only what this source says")
	cmd.Flags().StringVar(&vrf, "vrf", "", "only of this VRF")
	cmd.Flags().StringVar(&within, "within", "", "only in this prefix")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var of netip.Prefix
		if within != "" {
			var err error
			if of, err = prefixOrAddress(within); err != nil {
				return fmt.Errorf("users ls: --within: %w", err)
			}
		}
		over := 0
		err := listHoldings(cmd, where, *f, "", limit, func(h *users.Holder, now int64) bool {
			if !all && !current(h, now) {
				over++
				return false
			}
			return (source == "" || h.Source() == source) && (vrf == "" || h.VRF() == vrf) &&
				(within == "" || of.Bits() <= h.Prefix().Bits() && of.Contains(h.Prefix().Addr()))
		})
		if err == nil && over > 0 && *f == "table" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d bindings are over: --all lists them too\n", over)
		}
		return err
	}
	return cmd
}

func newShow(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show USER",
		Short: "Show what a user holds and held",
		Long: `Show lists all bindings of a user that are known, with the sessions of the access
servers that they come from, and those that are over.`,
		Example: `  tollbridge users show alice
  tollbridge users show -o json alice@isp.example`,
		Args: cobra.ExactArgs(1),
	}
	f := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return errors.New("users show: the user's name is empty")
		}
		return listHoldings(cmd, where, *f, args[0], 0, func(*users.Holder, int64) bool { return true })
	}
	return cmd
}

// errAllListed ends a listing.
var errAllListed = errors.New("as many as are wanted are listed")

// listHoldings prints what a user, or anybody where user is "", holds as it is
// read, as far as it is wanted, and at most limit of it if that isn't 0.
func listHoldings(cmd *cobra.Command, where *state.Flags, f listing.Format, user string, limit int, wanted func(h *users.Holder, now int64) bool) error {
	s, err := where.Open()
	if err != nil {
		return err
	}
	defer s.Close()
	l := listing.NewWriter(cmd.OutOrStdout(), f, holdingColumns, listing.Block)
	now := time.Now().UnixMilli()
	err = asm.EachHolder(cmd.Context(), s, user, func(h *users.Holder) error {
		if !wanted(h, now) {
			return nil
		}
		x := newHolding(h, now)
		if err := l.Add(x, x.cells()); err != nil {
			return err
		}
		if l.Len() == limit {
			return errAllListed
		}
		return nil
	})
	if err != nil && !errors.Is(err, errAllListed) {
		return err
	}
	return l.End()
}

func newAt(where *state.Flags) *cobra.Command {
	var port uint16
	var protocol uint8
	var vrf, remote string
	cmd := &cobra.Command{
		Use:   "at ADDRESS [TIME]",
		Short: "Explain who held an address at a moment",
		Long: `At says whose a flow is that ended at TIME (RFC 3339; default now) with this
address: the user, by which source and session, and why; and why all others who
held the address, or a prefix of it, at some time are not.`,
		Example: `  tollbridge users at 192.0.2.7
  tollbridge users at 2001:db8:7::1 2026-11-22T12:00:00Z
  tollbridge users at 192.0.2.1 2026-11-22T12:00:00+01:00 --port 1024 --protocol 6`,
		Args: cobra.RangeArgs(1, 2),
	}
	f := listing.FormatFlag(cmd)
	cmd.Flags().Uint16Var(&port, "port", 0, "port of a shared address")
	cmd.Flags().Uint8Var(&protocol, "protocol", 0, "its IP protocol number")
	cmd.Flags().StringVar(&remote, "remote", "", "host:port at the far side, where a NAT maps each session by itself")
	cmd.Flags().StringVar(&vrf, "vrf", "", "VRF of the address")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := netip.ParseAddr(args[0])
		if err != nil {
			return fmt.Errorf("users at: %q is no address: write one such as 192.0.2.7", args[0])
		}
		at := time.Now()
		if len(args) > 1 {
			if at, err = time.Parse(time.RFC3339Nano, args[1]); err != nil {
				return fmt.Errorf("users at: %q is no time: write it like 2026-01-31T08:30:00+01:00", args[1])
			}
		}
		var far netip.AddrPort
		if remote != "" {
			if far, err = netip.ParseAddrPort(remote); err != nil {
				return fmt.Errorf("users at: --remote: %q is not such as 203.0.113.9:443", remote)
			}
		}
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		t, err := asm.Directory(cmd.Context(), s, a)
		if err != nil {
			return err
		}
		l := listing.NewWriter(cmd.OutOrStdout(), *f, append([]string{"verdict", "why"}, holdingColumns...), listing.Block)
		candidates := t.Explain(vrf, a, port, protocol, far, at.UnixMilli())
		for _, c := range candidates {
			x := newHolding(c.Holder, time.Now().UnixMilli())
			x.Verdict, x.Why = "not", c.Why
			if c.Holds {
				x.Verdict = "holds"
			}
			if err := l.Add(x, append([]string{x.Verdict, x.Why}, x.cells()...)); err != nil {
				return err
			}
		}
		if err := l.End(); err != nil {
			return err
		}
		if len(candidates) == 0 || !candidates[0].Holds {
			fmt.Fprintln(cmd.ErrOrStderr(), "nobody is known to have held it: a flow of then waits in suspense (tollbridge spool suspense)")
		}
		return nil
	}
	return cmd
}

func newImport(where *state.Flags) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Give the bindings of a file to the running daemon",
		Long: `Import reads a users file (CSV or YAML) and gives it to the running daemon, which
puts it into its journal: from then on the bindings count, over restarts too. They
replace what was imported under the same name before; an empty file ends all of
it. The command returns when the bindings are durable and count.`,
		Example: `  tollbridge users import subscribers.csv
  tollbridge users import --as fixed-lines lines.yaml`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&name, "as", "default", "name of this import: another import of it replaces it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := users.ParseFile(args[0])
		if err != nil {
			return err
		}
		for _, w := range file.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w.Error())
		}
		dir, err := where.Existing()
		if err != nil {
			return err
		}
		source := control.ImportPrefix + name
		list := users.AppendList(nil, source, file.Bindings)
		bar := terminal.NewProgress(cmd.ErrOrStderr(), "import", int64(len(list)))
		in := progressbar.NewReader(bytes.NewReader(list), bar)
		var done control.Imported
		if err := control.Upload(cmd.Context(), dir, control.Import, &in, int64(len(list)), &done); err != nil {
			return fmt.Errorf("users import: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d bindings are durable as source %s, journal entry %d\n", len(file.Bindings), source, done.Position)
		return nil
	}
	return cmd
}
