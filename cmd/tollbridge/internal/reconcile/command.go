package reconcile

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/profile"
	"tollbridge/dict"
	"tollbridge/spool"
)

// New is the command "tollbridge reconcile".
func New() *cobra.Command {
	var limit int
	var only Filter
	cmd := &cobra.Command{
		Use:   "reconcile OURS THEIRS",
		Short: "Compare the accounting records of two sides",
		Long: `Reconcile compares what two sides have of the same accounting sessions, such as
a visited network that sent records and the home network that received them,
and lists per session which records are missing at theirs, extra there,
different, or on one side twice, and what the session comes to on both.

A side is one of
  DIR              a state directory: the accounting records that it has sent
                   or is still to send, while the outbox keeps them
  ARCHIVE          the directory of an archive: settled records
  DIR/cdr.db       the CDRs that an accounting application has received
  FILE.csv         a table with a header; columns session_id, number, type,
                   user, input_octets, output_octets, input_packets,
                   output_packets, realm, in any order, others beside them
  FILE.json        the same as JSON objects: one array, or one a line (.jsonl)
What "tollbridge spool ls" and "spool cdrs" print with -o csv or -o json is
such a file, and so are the .csv.zst and .jsonl.zst of an archive. Several, with
commas between, are one side; of an archive and then its state directory, what
is in both counts once. Both sides are sorted on disk, so they may be large.

A user is the same where theirs has what the profiles of OURS, a state directory,
make of the name: a pseudonym, or nothing.

The status is 1 if the sides differ.`,
		Example: `  tollbridge reconcile /var/lib/tollbridge /mnt/partner/cdr.db --realm home.example
  tollbridge reconcile /var/lib/archive,/var/lib/tollbridge theirs.csv
  tollbridge spool cdrs --limit 0 -o csv > theirs.csv
  tollbridge reconcile /var/lib/tollbridge theirs.csv --host bridge.isp.example -o json`,
		Args: cobra.ExactArgs(2),
	}
	out := listing.FormatFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&only.Host, "host", "", "only sessions of this node: its DiameterIdentity begins their Session-Ids")
	flags.StringVar(&only.Realm, "realm", "", "only records for this Destination-Realm; a file must have a column realm")
	listing.AddLimit(cmd, &limit)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var sides [2]Sorter
		for i, name := range args {
			defer sides[i].Close()
			if err := ReadSide(cmd.Context(), name, only, sides[i].Add); err != nil {
				return fmt.Errorf("reconcile: %w", err)
			}
		}
		names, err := partnerNames(cmd.Context(), args[0])
		if err != nil {
			return fmt.Errorf("reconcile: %w", err)
		}
		report := reconciliation{Sessions: []Session{}}
		report.Summary, err = Compare(sides[0].Sorted(), sides[1].Sorted(), names.known, func(s Session) error {
			if limit == 0 || len(report.Sessions) < limit {
				report.Sessions = append(report.Sessions, s)
			}
			return cmd.Context().Err()
		})
		if err != nil {
			return err
		}
		if err := report.print(cmd.OutOrStdout(), *out); err != nil {
			return err
		}
		if !report.Agree() {
			return fmt.Errorf("reconcile: the sides differ in %d of %d sessions", report.Differing, report.Differing+report.Equal)
		}
		return nil
	}
	return cmd
}

// nameChanges are the profiles that leave a user's name out, or put another in
// its place.
type nameChanges []dict.Profile

// partnerNames returns those by which the state directories of a side write
// their records.
func partnerNames(ctx context.Context, side string) (all nameChanges, err error) {
	for name := range strings.SplitSeq(side, ",") {
		if info, err := os.Stat(name); err != nil || !info.IsDir() || archived(name) {
			continue // ReadSide has read it
		}
		s, err := spool.OpenReadOnly(name)
		if err != nil {
			return nil, err
		}
		written, err := profile.All(ctx, s)
		s.Close()
		if err != nil {
			return nil, err
		}
		for _, w := range written {
			for _, p := range w {
				if p.UserName("somebody") != "somebody" {
					all = append(all, p)
				}
			}
		}
	}
	return all, nil
}

// known reports whether some profile makes their name for a user of ours.
func (n nameChanges) known(ours, theirs string) bool {
	return slices.ContainsFunc(n, func(p dict.Profile) bool { return p.UserName(ours) == theirs })
}

// A reconciliation is what a comparison found.
type reconciliation struct {
	Summary
	Sessions []Session `json:"sessions"` // that differ
}

// print prints the sessions that differ; as a table with the sums below, since
// that is what people look for when nothing differs.
func (r *reconciliation) print(w io.Writer, f listing.Format) error {
	t := listing.Table{
		Columns: []string{"kind", "session_id", "number", "user", "state", "our_octets", "their_octets", "session_ours", "session_theirs"},
		Value:   r,
	}
	for i := range r.Sessions {
		s := &r.Sessions[i]
		for j := range s.Findings {
			f := &s.Findings[j]
			kind := string(f.Kind)
			if f.Kind == Double {
				kind = fmt.Sprintf("%s (%s, %d times)", f.Kind, f.Side, f.Times)
			}
			t.Add(kind, s.SessionID, f.Record().Number, s.User, f.Record().State, octetsOf(f.Ours), octetsOf(f.Theirs), octets(s.Ours), octets(s.Theirs))
		}
		if s.Omitted > 0 {
			t.Add("and so on", s.SessionID, fmt.Sprintf("%d more", s.Omitted), s.User, "", "", "", octets(s.Ours), octets(s.Theirs))
		}
	}
	if err := t.Print(w, f); err != nil || f != "table" {
		return err
	}
	fmt.Fprintln(w)
	sums := listing.Table{Columns: []string{"", "sessions", "records", "input_octets", "output_octets", "input_packets", "output_packets"}}
	for _, side := range []struct {
		name string
		Side
	}{{"ours", r.Ours}, {"theirs", r.Theirs}} {
		u := side.Usage
		sums.Add(side.name, side.Sessions, side.Records, u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets)
		if u := side.Credits; u != (acct.Usage{}) {
			sums.Add(side.name+", credits", "", "", u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets)
		}
	}
	if err := sums.Print(w, f); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d sessions are equal, %d differ: %d records missing, %d extra, %d different, %d double\n",
		r.Equal, r.Differing, r.Missing, r.Extra, r.Different, r.Double)
	return err
}

// octets is a volume in both directions, as tables show it.
func octets(u acct.Usage) string { return fmt.Sprintf("%d/%d", u.InputOctets, u.OutputOctets) }

func octetsOf(r *Record) string {
	if r == nil {
		return ""
	}
	return octets(r.Usage)
}
