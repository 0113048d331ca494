package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/spool"
)

// tailEvery is how often tail looks for new records.
const tailEvery = 500 * time.Millisecond

func newSpoolTail(state *stateFlags) *cobra.Command {
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
		s, err := state.open()
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

func newSpoolExport(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all accounting records with all that is known of them, as lines of JSON",
		Example: `  tollbridge spool export > records.jsonl
  tollbridge spool export --data /tmp/whatif | jq 'select(.user == "alice")'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := state.open()
		if err != nil {
			return err
		}
		defer s.Close()
		e := json.NewEncoder(cmd.OutOrStdout())
		for after := uint64(0); ; {
			list, err := s.List(cmd.Context(), spool.Filter{After: after, Limit: 1000})
			if err != nil || len(list) == 0 {
				return err
			}
			for _, l := range list {
				if err := e.Encode(detailOf(l)); err != nil {
					return err
				}
				after = l.ID
			}
		}
	}
	return cmd
}

func newSpoolVerify(state *stateFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read all of the spool and check all that can be checked",
		Long: `Verify checks that the databases are whole, each checksum, that the books
balance and that the CDRs are as they were stored, beside a daemon or without
one. It reads everything, which takes its time. The exit status is 1 when
something is wrong; each thing is named.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := state.open()
			if err != nil {
				return err
			}
			defer s.Close()
			problems, err := s.Verify(cmd.Context())
			if err != nil {
				return err
			}
			if c, err := spool.OpenCDRsReadOnly(s.Dir()); err == nil { // there need not be any
				defer c.Close()
				if _, err := c.Totals(cmd.Context()); err != nil {
					problems = append(problems, err.Error())
				}
			}
			for _, p := range problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: %s\n", p)
			}
			if len(problems) > 0 {
				return errSilent
			}
			fmt.Fprintln(cmd.OutOrStdout(), "all is as it was written, and the books balance")
			return nil
		},
	}
}
