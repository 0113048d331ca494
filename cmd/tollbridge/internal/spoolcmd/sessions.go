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

func newSessions(where *state.Flags) *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the user sessions with their usage: open, or stopped and kept for late flows",
		Example: `  tollbridge spool sessions
  tollbridge spool sessions --limit 0 -o json | jq '.[] | select(.user == "alice")'`,
	}
	listing.AddPage(cmd, "sessions", &after, &limit)
	return where.List(cmd, func(ctx context.Context, s *spool.Spool) (listing.Table, error) {
		list, err := s.Sessions(ctx, after, limit)
		if err != nil {
			return listing.Table{}, err
		}
		type view struct {
			ID        uint64    `json:"id"`
			SessionID string    `json:"session_id"`
			User      string    `json:"user"`
			Started   time.Time `json:"started,omitzero"`
			Stopped   time.Time `json:"stopped,omitzero"`
			Number    uint32    `json:"number"`
			acct.Usage
			Open acct.Count `json:"open"`
		}
		views := make([]view, len(list))
		t := listing.Table{Columns: []string{"id", "user", "started", "stopped", "number", "input_octets", "output_octets", "open_octets", "session_id"}, Value: views}
		for i, x := range list {
			record := acct.Record{Shares: x.Open}
			v := view{x.ID, x.SessionID, x.User, listing.UnixTime(x.Started), listing.UnixTime(x.Stopped), x.Number, x.Usage, record.Increment()}
			views[i] = v
			t.Add(v.ID, v.User, listing.Time(v.Started), listing.Time(v.Stopped), v.Number, v.InputOctets, v.OutputOctets, v.Open.Octets, v.SessionID)
		}
		return t, nil
	})
}
