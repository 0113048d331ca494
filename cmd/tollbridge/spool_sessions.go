package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

func newSpoolSessions(state *stateFlags) *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the user sessions with their usage: open, or stopped and kept for late flows",
	}
	addPage(cmd, "sessions", &after, &limit)
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		list, err := s.Sessions(ctx, after, limit)
		if err != nil {
			return table{}, err
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
		t := table{columns: []string{"id", "user", "started", "stopped", "number", "input_octets", "output_octets", "open_octets", "session_id"}, value: views}
		for i, x := range list {
			record := acct.Record{Shares: x.Open}
			v := view{x.ID, x.SessionID, x.User, unixTime(x.Started), unixTime(x.Stopped), x.Number, x.Usage, record.Increment()}
			views[i] = v
			t.add(v.ID, v.User, timeText(v.Started), timeText(v.Stopped), v.Number, v.InputOctets, v.OutputOctets, v.Open.Octets, v.SessionID)
		}
		return t, nil
	})
}
