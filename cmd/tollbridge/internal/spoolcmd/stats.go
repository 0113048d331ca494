package spoolcmd

import (
	"context"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newStats(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stats",
		Short:   "Say how full the spool is and how far the pipeline has come",
		Example: "  tollbridge spool stats -o json",
	}
	return where.List(cmd, func(ctx context.Context, s *spool.Spool) (listing.Table, error) {
		st, err := s.Stats(ctx)
		if err != nil {
			return listing.Table{}, err
		}
		t := listing.Table{Columns: []string{"what", "value"}, Value: st}
		for d := acct.Pending; d <= acct.Covered; d++ {
			t.Add("records "+d.String(), st.Records[d.String()])
		}
		if !st.Oldest.IsZero() {
			t.Add("oldest pending record", listing.Time(st.Oldest))
		}
		t.Add("sessions, open or kept for late flows", st.Sessions)
		t.Add("flows in suspense", st.Suspended)
		if st.First > st.Last {
			t.Add("journal entries", 0)
		} else {
			t.Add("journal entries", st.Last-st.First+1)
		}
		t.Add("journal last position", st.Last)
		t.Add("checkpoint position", st.Checkpoint)
		if st.Damaged > 0 {
			t.Add("damaged journal groups set aside", st.Damaged)
		}
		t.Add("octets of state.db", st.Octets.State)
		t.Add("octets of the journal", st.Octets.Journal)
		t.Add("octets of cdr.db", st.Octets.CDR)
		return t, nil
	})
}
