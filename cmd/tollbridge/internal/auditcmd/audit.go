// Package auditcmd is "tollbridge audit": the books of a state directory, and what
// went into them.
package auditcmd

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/spool"
)

// New is the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Draw up the books and check that they balance",
		Long: `Audit shows, per exporter, Observation Domain and interval of arrival, where
every record and octet went:

  received + mirrored = accounted + duplicate + suspended + rejected + skipped
  accounted           = open + pending + acknowledged + quarantined

Both sides are counted independently, in one moment, beside a running daemon
or without one. Estimated is the part of accounted that was scaled from sampled
packets. Undecoded data and lost records stand apart; confidence says what the
number of lost records is worth: exact, estimated, suspect, or unknown where
the exporter's numbers began anew. Unscaled are records, duplicates included,
that name a sampler of which the exporter has said nothing: they count as they
came, and are in estimated. The exit status is 1, and the row is named,
when something does not balance.

With --user the rows are those of one user's accounting records: what each
exporter, domain and interval gave to which record.`,
		Example: `  tollbridge audit
  tollbridge audit --since 2026-11-22 --exporter edge-1 -o csv
  tollbridge audit --duplicates --exporter edge-1
  tollbridge audit --user alice --since 24h`,
		Args: cobra.NoArgs,
	}
	where := state.AddFlags(cmd)
	cmd.AddCommand(newRecord(where))
	out := listing.FormatFlag(cmd)
	var since, until moment
	var exporter, user string
	var duplicates bool
	cmd.Flags().Var(&since, "since", "only intervals that begin at or after this time: 2026-11-22, 2026-11-22T13:00:00Z, or 24h ago")
	cmd.Flags().Var(&until, "until", "only intervals that begin before this time")
	cmd.Flags().StringVar(&exporter, "exporter", "", "only this exporter")
	cmd.Flags().BoolVar(&duplicates, "duplicates", false, "which records were duplicates, of which, and why, as far as the journal is kept")
	cmd.Flags().StringVar(&user, "user", "", "what went into the accounting records of this user")
	cmd.MarkFlagsMutuallyExclusive("duplicates", "user")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		sel := spool.Selection{Since: since.Time, Until: until.Time, Exporter: exporter}
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		if duplicates {
			t, err := duplicatesTable(cmd.Context(), s, sel)
			if err != nil {
				return err
			}
			return t.Print(cmd.OutOrStdout(), *out)
		}
		if user != "" {
			t, err := userTable(cmd.Context(), s, user, sel)
			if err != nil {
				return err
			}
			return t.Print(cmd.OutOrStdout(), *out)
		}
		books, err := s.AuditOf(cmd.Context(), sel)
		if err != nil {
			return err
		}
		t := booksTable(books, *out == "csv")
		if err := t.Print(cmd.OutOrStdout(), *out); err != nil {
			return err
		}
		if *out == "table" {
			fmt.Fprintln(cmd.OutOrStdout(), Line(books))
			if err := sayBehind(cmd, s); err != nil {
				return err
			}
			if n := books.Total.Unscaled.Records; n > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%d records name a sampler that no options record has told of: they count unscaled, so bills are too low until collectingProcess.exporters[].sampling says its rate\n", n)
			}
		}
		if !books.Balanced {
			for _, p := range books.Problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: books do not balance: %s\n", p)
			}
			return terminal.ErrTold
		}
		return nil
	}
	return cmd
}

// sayBehind says how much of the journal the books do not have yet.
func sayBehind(cmd *cobra.Command, s *spool.Spool) error {
	st, err := s.Stats(cmd.Context())
	if err == nil && st.Last > st.Checkpoint {
		fmt.Fprintf(cmd.OutOrStdout(), "not in the books yet: the latest %d entries of the journal; the daemon's next checkpoint brings them\n", st.Last-st.Checkpoint)
	}
	return err
}

// booksTable lists the rows of the books and their total. For people it shows
// octets; wide adds records and packets.
func booksTable(b spool.Books, wide bool) listing.Table {
	t := listing.Table{Value: b, Columns: []string{"exporter", "domain", "interval"}}
	for _, a := range Amounts(spool.Sums{}) {
		if wide {
			t.Columns = append(t.Columns, a.Name+"_records", a.Name+"_octets", a.Name+"_packets")
		} else {
			t.Columns = append(t.Columns, a.Name)
		}
	}
	t.Columns = append(t.Columns, "undecoded", "lost", "confidence", "unscaled")
	add := func(s spool.Sums, cells ...any) {
		for _, a := range Amounts(s) {
			if wide {
				cells = append(cells, a.Records, a.Octets, a.Packets)
			} else {
				cells = append(cells, a.Octets)
			}
		}
		t.Add(append(cells, s.Undecoded.Octets, s.Lost.Records, s.Lost.Confidence, s.Unscaled.Records)...)
	}
	for _, r := range b.Rows {
		add(r.Sums, r.Exporter, r.Domain, r.Interval.UTC().Format(time.RFC3339))
	}
	add(b.Total, "total", "", "")
	return t
}

// An Amount is a column of the books.
type Amount struct {
	Name string
	acct.Count
}

// Amounts are the columns of the books with what s has in each.
func Amounts(s spool.Sums) []Amount {
	return []Amount{
		{"received", s.Received}, {"mirrored", s.Mirrored}, {"accounted", s.Accounted}, {"duplicate", s.Duplicate},
		{"suspended", s.Suspended}, {"rejected", s.Rejected}, {"skipped", s.Skipped}, {"open", s.Open},
		{"pending", s.Pending}, {"acknowledged", s.Acknowledged}, {"quarantined", s.Quarantined}, {"estimated", s.Estimated},
	}
}

// Line is what the books come to in a line.
func Line(b spool.Books) string {
	if !b.Balanced {
		return "books do not balance: " + b.Problems[0]
	}
	return fmt.Sprintf("books balanced: %d octets received, %d accounted", b.Total.Received.Octets, b.Total.Accounted.Octets)
}
