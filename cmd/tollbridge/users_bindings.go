package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/control"
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

func newHolding(h *users.Holder, now int64) holding {
	b := h.Binding()
	state := "open"
	switch {
	case h.Removed():
		state = "removed"
	case h.From > now:
		state = "to come"
	case h.Until != 0 && h.Until <= now && h.ID() != "" && !h.Ended():
		state = "supposed over"
	case h.Until != 0 && h.Until <= now:
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

// A rowWriter prints a listing of any length row by row.
type rowWriter struct {
	f    format
	csv  *csv.Writer
	json *json.Encoder
	tab  *tabwriter.Writer
	w    io.Writer
	n    int
}

// tableBlock is how many lines of a table are aligned together.
const tableBlock = 1000

func newRowWriter(w io.Writer, f format, columns []string) *rowWriter {
	r := &rowWriter{f: f, w: w}
	switch f {
	case "json":
		r.json = json.NewEncoder(w)
	case "csv":
		r.csv = csv.NewWriter(w)
		r.csv.Write(columns) //nolint:errcheck // Flush keeps the error
	default:
		r.tab = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		upper := make([]string, len(columns))
		for i, c := range columns {
			upper[i] = strings.ToUpper(c)
		}
		fmt.Fprintln(r.tab, strings.Join(upper, "\t"))
	}
	return r
}

// add prints a row: as cells or, in JSON, as value.
func (r *rowWriter) add(value any, cells []string) error {
	r.n++
	switch r.f {
	case "json":
		separator := ","
		if r.n == 1 {
			separator = "["
		}
		if _, err := io.WriteString(r.w, separator); err != nil {
			return err
		}
		return r.json.Encode(value)
	case "csv":
		return r.csv.Write(cells)
	}
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(r.tab, strings.Join(cells, "\t"))
	if r.n%tableBlock == 0 {
		return r.tab.Flush()
	}
	return nil
}

func (r *rowWriter) close() error {
	switch r.f {
	case "json":
		end := "]\n"
		if r.n == 0 {
			end = "[]\n"
		}
		_, err := io.WriteString(r.w, end)
		return err
	case "csv":
		r.csv.Flush()
		return r.csv.Error()
	}
	return r.tab.Flush()
}

// directory reads who held what from the latest checkpoint.
func (f *stateFlags) directory(ctx context.Context) (*users.Table, error) {
	s, err := f.open()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	checkpoint, err := s.Load(ctx)
	if err != nil {
		return nil, err
	}
	return asm.Directory(checkpoint.State)
}

func newUsersLs(state *stateFlags) *cobra.Command {
	var all bool
	var source, vrf string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List who holds which address",
		Long: `Ls lists the bindings that the pipeline goes by, as of its latest checkpoint:
those that hold now or have yet to begin, and with --all those that are over and
kept for late flows. It reads beside a running daemon.`,
		Example: `  tollbridge users ls
  tollbridge users ls --all --source radius -o csv`,
		Args: cobra.NoArgs,
	}
	f := formatFlag(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also what is over")
	cmd.Flags().StringVar(&source, "source", "", "only what this source says")
	cmd.Flags().StringVar(&vrf, "vrf", "", "only of this VRF")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return listHoldings(cmd, state, *f, func(h *holding) bool {
			return (all || h.State == "open" || h.State == "to come") && (source == "" || h.Source == source) && (vrf == "" || h.VRF == vrf)
		})
	}
	return cmd
}

func newUsersShow(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show USER",
		Short: "Show what a user holds and held",
		Long: `Show lists all bindings of a user that are known, with the sessions of the access
servers that they come from, and those that are over.`,
		Example: `  tollbridge users show alice
  tollbridge users show -o json alice@isp.example`,
		Args: cobra.ExactArgs(1),
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return listHoldings(cmd, state, *f, func(h *holding) bool { return h.User == args[0] })
	}
	return cmd
}

func listHoldings(cmd *cobra.Command, state *stateFlags, f format, wanted func(*holding) bool) error {
	t, err := state.directory(cmd.Context())
	if err != nil {
		return err
	}
	w := newRowWriter(cmd.OutOrStdout(), f, holdingColumns)
	now := time.Now().UnixMilli()
	for h := range t.All {
		x := newHolding(h, now)
		if !wanted(&x) {
			continue
		}
		if err := w.add(x, x.cells()); err != nil {
			return err
		}
	}
	return w.close()
}

func newUsersAt(state *stateFlags) *cobra.Command {
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
	f := formatFlag(cmd)
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
		t, err := state.directory(cmd.Context())
		if err != nil {
			return err
		}
		w := newRowWriter(cmd.OutOrStdout(), *f, append([]string{"verdict", "why"}, holdingColumns...))
		candidates := t.Explain(vrf, a, port, protocol, far, at.UnixMilli())
		for _, c := range candidates {
			x := newHolding(c.Holder, time.Now().UnixMilli())
			x.Verdict, x.Why = "not", c.Why
			if c.Holds {
				x.Verdict = "holds"
			}
			if err := w.add(x, append([]string{x.Verdict, x.Why}, x.cells()...)); err != nil {
				return err
			}
		}
		if err := w.close(); err != nil {
			return err
		}
		if len(candidates) == 0 || !candidates[0].Holds {
			fmt.Fprintln(cmd.ErrOrStderr(), "nobody is known to have held it: a flow of then waits in suspense (tollbridge spool suspended)")
		}
		return nil
	}
	return cmd
}

// importRequest is a list of bindings for the running daemon.
type importRequest struct {
	Source   string
	Bindings []byte // as users.AppendList has them
}

type importResult struct{ Position uint64 }

// importSource begins the names of imported sources, lest one be taken for the
// daemon's own.
const importSource = "import:"

func newUsersImport(state *stateFlags) *cobra.Command {
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
		dir, err := state.existing()
		if err != nil {
			return err
		}
		source := importSource + name
		var done importResult
		request := importRequest{source, users.AppendList(nil, source, file.Bindings)}
		if err := control.Call(cmd.Context(), dir, "import", request, &done); err != nil {
			return fmt.Errorf("users import: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s bindings are durable as source %s, journal entry %d\n", strconv.Itoa(len(file.Bindings)), source, done.Position)
		return nil
	}
	return cmd
}

// importUsers journals a list of bindings that a command brings.
func (b *bridge) importUsers(ctx context.Context, r importRequest) (importResult, error) {
	source, list, err := users.ParseList(r.Bindings)
	if err != nil {
		return importResult{}, err
	}
	if source != r.Source || !strings.HasPrefix(source, importSource) {
		return importResult{}, fmt.Errorf("users import: source %q: its name must begin with %q", r.Source, importSource)
	}
	position, err := b.journal.Append(acct.EntryUsers, time.Now().UnixNano(), 0, users.AppendList(nil, source, list))
	if err == nil {
		err = b.journal.Wait(ctx, position)
	}
	if err == nil {
		err = b.runner.Wait(ctx, position) // listings show it from now on
	}
	return importResult{position}, err
}
