package spoolcmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newSuspense(where *state.Flags) *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "suspense",
		Short: "List the flows that wait for a user or a decision, and why",
		Long: `Suspense lists flows that are received and not accounted:

  unmapped        nobody is known to have held an address of it; it is accounted as
                  soon as a source of users says who did
  below floor     it is so old that it can't be told from a copy
  ahead of clock  it ends later than it came
  total unknown   its counters are totals whose former values may be forgotten
  conflict        it came in a request like another's, with other content

"spool release" accounts those that wait for a decision, "spool reject" gives
flows up for good.`,
		Example: `  tollbridge spool suspense
  tollbridge spool suspense --limit 0 -o csv > suspense.csv`,
	}
	listing.AddPage(cmd, "flows", &after, &limit)
	return where.List(cmd, func(ctx context.Context, s *spool.Spool) (listing.Table, error) {
		list, err := s.Suspended(ctx, after, limit)
		if err != nil {
			return listing.Table{}, err
		}
		type view struct {
			ID       uint64     `json:"id"`
			Reason   string     `json:"reason"`
			Exporter string     `json:"exporter"`
			Domain   uint32     `json:"domain"`
			Flow     string     `json:"flow"`
			FlowEnd  time.Time  `json:"flow_end"`
			Since    time.Time  `json:"since"`
			Position uint64     `json:"journal_position"`
			Count    acct.Count `json:"count"`
		}
		views := make([]view, len(list))
		t := listing.Table{Columns: []string{"id", "reason", "exporter", "flow", "flow_end", "since", "octets", "packets"}, Value: views}
		for i, x := range list {
			v := view{x.ID, x.Reason, x.Key.Exporter, x.Key.Domain, x.Source, time.UnixMilli(x.FlowEnd).UTC(), time.Unix(0, x.Since).UTC(), x.Position, x.Count}
			views[i] = v
			t.Add(v.ID, v.Reason, v.Exporter, v.Flow, listing.Time(v.FlowEnd), listing.Time(v.Since), v.Count.Octets, v.Count.Packets)
		}
		return t, nil
	})
}
