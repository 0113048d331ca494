package spoolcmd

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/state"
)

func newAdjust(where *state.Flags) *cobra.Command {
	var in control.Adjustment
	var credit, debit bool
	cmd := &cobra.Command{
		Use:   "adjust {ID | SESSION-ID NUMBER} {--credit | --debit} {--all | --input-octets N ...}",
		Short: "Correct what a user was charged, by a record of its own",
		Long: `Adjust credits a user with usage that an accounting record charged, or charges
more. Nothing that was delivered is ever changed: an EVENT_RECORD with a
Session-Id of its own names the record that it corrects, and is booked and
delivered like any other. With --to, another user is charged what is taken away,
by a second record; with --to-class, it is charged as usage of another class: a
re-rating.

Who decided, when and why is kept; see "spool decisions". The daemon must be
running.`,
		Example: `  tollbridge spool adjust 17 --credit --all --because "a measurement loop counted twice"
  tollbridge spool adjust 17 --credit --input-octets 5000 --to bob@isp.example --because "the address was Bob's by then"
  tollbridge spool adjust 17 --credit --all --class gold --to-class standard --because "gold ended in May"`,
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.BoolVar(&credit, "credit", false, "take the usage away from the user")
	flags.BoolVar(&debit, "debit", false, "charge the user more")
	flags.BoolVar(&in.All, "all", false, "all of the record's usage")
	flags.Uint64Var(&in.Usage.InputOctets, "input-octets", 0, "octets from the user")
	flags.Uint64Var(&in.Usage.OutputOctets, "output-octets", 0, "octets to the user")
	flags.Uint64Var(&in.Usage.InputPackets, "input-packets", 0, "packets from the user")
	flags.Uint64Var(&in.Usage.OutputPackets, "output-packets", 0, "packets to the user")
	flags.StringVar(&in.User, "user", "", "whose record it is; needed where the outbox no longer has it")
	flags.StringVar(&in.To, "to", "", "the user who is charged what is taken away (with --credit)")
	flags.StringVar(&in.Class, "class", "", "the class of the record's usage; by default that of no class is meant")
	flags.StringVar(&in.ToClass, "to-class", "", "the class that what is taken away is charged as (with --credit)")
	flags.StringVar(&in.Reason, "because", "", "why, for the books (required)")
	_ = cmd.MarkFlagRequired("because") // it is defined above
	cmd.MarkFlagsOneRequired("credit", "debit")
	cmd.MarkFlagsMutuallyExclusive("credit", "debit")
	cmd.MarkFlagsMutuallyExclusive("to", "debit")
	cmd.MarkFlagsMutuallyExclusive("to-class", "debit")
	for _, counter := range []string{"input-octets", "output-octets", "input-packets", "output-packets"} {
		cmd.MarkFlagsMutuallyExclusive("all", counter)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		last := args[len(args)-1]
		n, err := strconv.ParseUint(last, 10, 64)
		if err != nil || len(args) == 2 && n > 1<<32-1 {
			return fmt.Errorf("%q is not a number: give an ID from \"spool ls\", or a Session-Id and a record number", last)
		}
		if len(args) == 1 {
			in.ID = n
		} else {
			in.SessionID, in.Number = args[0], uint32(n)
		}
		if !in.All && in.Usage == (acct.Usage{}) {
			return errors.New("want --all, or how much: --input-octets, --output-octets, --input-packets, --output-packets")
		}
		in.Credit, in.By = credit, operator()
		return decided(cmd.Context(), where, cmd.OutOrStdout(), control.Adjust, in)
	}
	return cmd
}
