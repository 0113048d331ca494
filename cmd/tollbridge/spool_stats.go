package main

import (
	"context"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

func newSpoolStats(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Say how full the spool is and how far the pipeline has come",
	}
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		st, err := s.Stats(ctx)
		if err != nil {
			return table{}, err
		}
		t := table{columns: []string{"what", "value"}, value: st}
		for d := acct.Pending; d <= acct.Covered; d++ {
			t.add("records "+d.String(), st.Records[d.String()])
		}
		if !st.Oldest.IsZero() {
			t.add("oldest pending record", timeText(st.Oldest))
		}
		t.add("sessions, open or kept for late flows", st.Sessions)
		t.add("flows in suspense", st.Suspended)
		if st.First > st.Last {
			t.add("journal entries", 0)
		} else {
			t.add("journal entries", st.Last-st.First+1)
		}
		t.add("journal last position", st.Last)
		t.add("checkpoint position", st.Checkpoint)
		if st.Damaged > 0 {
			t.add("damaged journal groups set aside", st.Damaged)
		}
		t.add("octets of state.db", st.Octets.State)
		t.add("octets of journal.db", st.Octets.Journal)
		t.add("octets of cdr.db", st.Octets.CDR)
		return t, nil
	})
}
