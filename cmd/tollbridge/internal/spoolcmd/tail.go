package spoolcmd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

// tailEvery is how often tail looks for new records.
const tailEvery = 500 * time.Millisecond

func newTail(where *state.Flags) *cobra.Command {
	var lines uint64
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow the accounting records as they are cut, until interrupted",
		Long: `Tail shows the latest accounting records and then each new one, a line of JSON
each, beside a running daemon. What becomes of them later it does not show.`,
		Example: `  tollbridge spool tail
  tollbridge spool tail -n 0 | jq -r '[.user, .input_octets, .output_octets] | @tsv'`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Uint64VarP(&lines, "lines", "n", 10, "how many of the latest to begin with")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		next, err := s.NextRecord(cmd.Context())
		if err != nil {
			return err
		}
		err = tail(cmd.Context(), s, next-min(next, lines+1), cmd.OutOrStdout())
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	return cmd
}

// tail writes the records above an ID, and those that come, until ctx ends.
func tail(ctx context.Context, s *spool.Spool, after uint64, w io.Writer) error {
	look := time.NewTicker(tailEvery)
	defer look.Stop()
	e := json.NewEncoder(w)
	for {
		list, err := s.List(ctx, spool.Filter{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		for _, l := range list {
			if err := e.Encode(detailOf(l)); err != nil {
				return err
			}
			after = l.ID
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}
