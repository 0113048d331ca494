package spoolcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newRestored(where *state.Flags) *cobra.Command {
	return &cobra.Command{
		Use:   "restored",
		Short: "Say that the state directory was restored from a backup",
		Long: `Restored must be run once after a state directory was put back from a backup, and
before the daemon starts on it. What was accounted after the backup was made is
not in it, so its next Session-Ids and record numbers have been given out before,
and an AAA server would take new records for copies of old ones.

From the next start on Session-Ids are of a new epoch: sessions that were open go
on under new ones, with the same Acct-Multi-Session-Id; usage that was not yet in
a record becomes EVENT records; Origin-State-Id rises, by which AAA servers know
that the former sessions are over (RFC 6733, Section 8.16). Records that the
backup holds as pending are sent again as they are, which servers recognize.

Only you can know that it is a backup: a copy looks like the original.`,
		Example: `  systemctl stop tollbridge
  rsync -a backup/tollbridge/ /var/lib/tollbridge/
  tollbridge spool restored --data /var/lib/tollbridge
  systemctl start tollbridge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := where.Existing()
			if err != nil {
				return err
			}
			if err := restored(cmd.Context(), dir); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Session-Ids begin a new epoch at the next start; see \"tollbridge spool decisions\" then")
			return nil
		},
	}
}

// restored journals that the spool in dir, which no daemon has open, came from
// a backup.
func restored(ctx context.Context, dir string) (err error) {
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := asm.Command{What: asm.NewEpoch, By: operator(), Reason: "the state directory was restored from a backup"}
	data, err := c.AppendBinary(nil)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Journal().Run(running) }()
	now := time.Now()
	position, err := s.Journal().Append(acct.EntryCommand, now.UnixNano(), 0, data)
	if err == nil {
		err = s.Journal().Wait(ctx, position)
	}
	stop()
	return errors.Join(err, <-ended, s.RaiseStateID(now))
}
