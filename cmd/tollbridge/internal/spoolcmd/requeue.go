package spoolcmd

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newRequeue(where *state.Flags) *cobra.Command {
	return &cobra.Command{
		Use:   "requeue ID...",
		Short: "Put quarantined accounting records back to be delivered again",
		Long: `Requeue puts quarantined records back to the end of the outbox, with new IDs
and the same content, once what they were refused for has been mended. It asks
the daemon for it, if one runs, and else does it itself.`,
		Example: "  tollbridge spool ls --state quarantined\n  tollbridge spool requeue 17 18",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids := make([]uint64, len(args))
			for i, a := range args {
				var err error
				if ids[i], err = strconv.ParseUint(a, 10, 64); err != nil {
					return fmt.Errorf("%q is not an ID: take one from \"spool ls --state quarantined\"", a)
				}
			}
			dir, err := where.Existing()
			if err != nil {
				return err
			}
			var again []uint64
			if err = control.Call(cmd.Context(), dir, control.Requeue, ids, &again); errors.Is(err, control.ErrNoDaemon) {
				again, err = requeueAlone(cmd.Context(), dir, ids)
			}
			if err != nil {
				return err
			}
			for i, id := range again {
				fmt.Fprintf(cmd.OutOrStdout(), "%d is pending again as %d\n", ids[i], id)
			}
			return nil
		},
	}
}

// requeueAlone requeues records of a spool that no daemon has.
func requeueAlone(ctx context.Context, dir string, ids []uint64) ([]uint64, error) {
	s, err := spool.Open(dir, spool.Config{})
	if errors.Is(err, spool.ErrInUse) {
		return nil, fmt.Errorf("%w: stop the daemon first", err)
	}
	if err != nil {
		return nil, err
	}
	again, err := s.Outbox().Requeue(ctx, ids)
	return again, errors.Join(err, s.Close())
}
