package spoolcmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/spool"
)

func newVerify(where *state.Flags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read all of the spool and check all that can be checked",
		Long: `Verify checks that the databases are whole, each checksum, that the books
balance and that the CDRs are as they were stored, beside a daemon or without
one. It reads everything, which takes its time. The exit status is 1 when
something is wrong; each thing is named.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := where.Open()
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
				return terminal.ErrTold
			}
			fmt.Fprintln(cmd.OutOrStdout(), "all is as it was written, and the books balance")
			return nil
		},
	}
}
