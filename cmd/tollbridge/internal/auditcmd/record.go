package auditcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/entry"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/spool"
)

func newRecord(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "record {ID | SESSION-ID NUMBER}",
		Short: "Show which flow records an accounting record was made of",
		Long: `Record reads again that part of the journal in which the octets of an accounting
record arrived, with the pipeline's own code, and lists each flow that fell to
the record: the journal entry that brought it, its addresses and times, and
what of it was counted. The flows add up to the record's increment, to the
octet; where they do not, since the journal is kept no longer
(spool.keepJournal) or a first copy of a flow came before it, it says what
differs in which row of the ledger. The exit status is 1 when something differs
although the journal is kept from its beginning.`,
		Example: `  tollbridge audit --user alice
  tollbridge audit record 17
  tollbridge audit record 'bridge.isp.example;1763776800;1' 3 -o csv`,
		Args: cobra.RangeArgs(1, 2),
	}
	out := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		l, err := findRecord(cmd.Context(), s, args)
		if err != nil {
			return err
		}
		origin, err := traceRecord(cmd.Context(), s, l)
		if err != nil {
			return err
		}
		if err := origin.print(cmd.OutOrStdout(), *out); err != nil {
			return err
		}
		if len(origin.Differs) > 0 && origin.Whole {
			for _, m := range origin.Differs {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: record %d: %s\n", l.ID, m)
			}
			return terminal.ErrTold
		}
		return nil
	}
	return cmd
}

// findRecord returns the record that the arguments name; of one in parts, that
// which has the increment.
func findRecord(ctx context.Context, s *spool.Spool, args []string) (spool.Listed, error) {
	n, err := strconv.ParseUint(args[len(args)-1], 10, 64)
	if err != nil {
		return spool.Listed{}, fmt.Errorf("%q is not a number: give an ID from \"spool ls\", or a Session-Id and a record number", args[len(args)-1])
	}
	if len(args) == 1 {
		return s.Show(ctx, n)
	}
	found, err := s.ShowNumber(ctx, args[0], uint32(n))
	if err != nil {
		return spool.Listed{}, err
	}
	return found[0], nil
}

// An Origin is what an accounting record was made of.
type Origin struct {
	ID        uint64     `json:"id"`
	SessionID string     `json:"session_id"`
	Number    uint32     `json:"number"`
	User      string     `json:"user"`
	Increment acct.Count `json:"increment"`
	Found     acct.Count `json:"found"`
	Whole     bool       `json:"journal_whole"`     // it is kept from its beginning, so nothing may differ
	Differs   []string   `json:"differs,omitempty"` // where the flows do not add up, by row of the ledger
	Flows     []Flow     `json:"flows"`
}

// A Flow is a flow record as it fell to an accounting record.
type Flow struct {
	Position uint64    `json:"journal_position"`
	Exporter string    `json:"exporter"`
	Domain   uint32    `json:"domain"`
	Interval time.Time `json:"interval"` // of arrival
	Flow     string    `json:"flow"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	acct.Usage
	Count acct.Count `json:"count"`
}

func (o *Origin) print(w io.Writer, f listing.Format) error {
	t := listing.Table{Value: o, Columns: []string{"journal_position", "exporter", "domain", "interval", "flow", "start", "end", "input_octets", "output_octets", "input_packets", "output_packets"}}
	for _, x := range o.Flows {
		t.Add(x.Position, x.Exporter, x.Domain, listing.Time(x.Interval), x.Flow, listing.Time(x.Start), listing.Time(x.End), x.InputOctets, x.OutputOctets, x.InputPackets, x.OutputPackets)
	}
	if err := t.Print(w, f); err != nil || f != "table" {
		return err
	}
	if len(o.Differs) == 0 {
		_, err := fmt.Fprintf(w, "adds up to the record's increment: %d records, %d octets, %d packets\n", o.Increment.Records, o.Increment.Octets, o.Increment.Packets)
		return err
	}
	fmt.Fprintf(w, "comes to %d octets, but the record's increment is %d, by what is kept of the journal:\n", o.Found.Octets, o.Increment.Octets)
	for _, m := range o.Differs {
		fmt.Fprintln(w, "  "+m)
	}
	return nil
}

// traceRecord reads the journal again from before the octets of l arrived
// until it is cut. If that comes to another Amount, since a first copy of
// something came still earlier, it begins with the oldest entry.
func traceRecord(ctx context.Context, s *spool.Spool, l spool.Listed) (*Origin, error) {
	r := &l.Record
	from := r.Event
	for _, sh := range r.Shares {
		if at := time.Unix(sh.Interval, 0); at.Before(from) {
			from = at
		}
	}
	var o *Origin
	read := uint64(math.MaxUint64)
	for _, at := range []time.Time{from, time.Unix(0, 0)} {
		opening, err := s.OpeningAt(ctx, at)
		if err != nil && !errors.Is(err, spool.ErrNotFound) {
			return nil, err
		}
		none := err != nil && opening.State == nil
		if !none && opening.Position >= read {
			break
		}
		read = opening.Position
		o = &Origin{
			ID: l.ID, SessionID: r.SessionID, Number: r.Number, User: r.User, Increment: r.Increment(),
			Whole: err == nil && opening.Position == 0, Flows: []Flow{},
		}
		if len(r.Shares) == 0 {
			return o, nil
		}
		t := &recordTracer{want: r, open: make(map[uint64][]asm.TracedFlow)}
		if !none {
			if err := entry.Replay(ctx, s, opening, t, func(uint64) bool { return t.found }); err != nil {
				return nil, err
			}
		}
		for _, f := range t.flows {
			o.Flows = append(o.Flows, Flow{f.Position, f.Exporter, f.Domain, listing.UnixTime(f.Interval), f.Endpoints, f.Start, f.End, f.Usage, f.Count})
			o.Found = o.Found.Plus(f.Count)
		}
		if o.compare(r); len(o.Differs) == 0 || none {
			break
		}
	}
	return o, nil
}

// compare says which rows of the ledger gave r more than the flows that were
// found.
func (o *Origin) compare(r *acct.Record) {
	found := make(map[acct.LedgerKey]acct.Count)
	for _, f := range o.Flows {
		k := acct.LedgerKey{Exporter: f.Exporter, Domain: f.Domain, Interval: f.Interval.Unix()}
		found[k] = found[k].Plus(f.Count)
	}
	for _, sh := range r.Shares {
		if got := found[sh.LedgerKey]; got != sh.Count {
			o.Differs = append(o.Differs, fmt.Sprintf("exporter %q domain %d interval %s gave %d records, %d octets, %d packets; the journal that is kept shows %d, %d, %d",
				sh.Exporter, sh.Domain, listing.Time(listing.UnixTime(sh.Interval)), sh.Records, sh.Octets, sh.Packets, got.Records, got.Octets, got.Packets))
		}
	}
}

// A recordTracer collects the flows of one record.
type recordTracer struct {
	want  *acct.Record
	open  map[uint64][]asm.TracedFlow // of the user's sessions, not cut yet
	flows []asm.TracedFlow
	found bool
}

// Flow implements asm.Tracer.
func (t *recordTracer) Flow(session uint64, f asm.TracedFlow) {
	if f.User == t.want.User {
		t.open[session] = append(t.open[session], f)
	}
}

// Record implements asm.Tracer.
func (t *recordTracer) Record(session uint64, r *acct.Record) {
	if r.SessionID == t.want.SessionID && r.Number == t.want.Number && r.Type == t.want.Type {
		t.flows, t.found = t.open[session], true
	}
	delete(t.open, session)
}
