package spoolcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

// operator names who runs the command, for the books.
func operator() string {
	u, err := user.Current()
	if err != nil {
		return "?"
	}
	return u.Username
}

// order sends c to the daemon of the state directory and prints what came of
// it.
func order(ctx context.Context, where *state.Flags, out io.Writer, c asm.Command) error {
	c.By = operator()
	if err := c.Validate(); err != nil {
		return err
	}
	return decided(ctx, where, out, control.Decide, c)
}

// decided sends a command that is answered by an acct.Decision, and prints
// that.
func decided(ctx context.Context, where *state.Flags, out io.Writer, name string, in any) error {
	dir, err := where.Existing()
	if err != nil {
		return err
	}
	var d acct.Decision
	if err := control.Call(ctx, dir, name, in, &d); errors.Is(err, control.ErrNoDaemon) {
		return fmt.Errorf("%w: decisions are entries of its journal: start it", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s: %d records, %d octets, %d packets\n", d.What, d.On, d.Count.Records, d.Count.Octets, d.Count.Packets)
	return nil
}

func newRelease(where *state.Flags) *cobra.Command {
	return newDecide(where, asm.ReleaseFlows, "Account suspended flows as if they were new",
		`Release takes flows out of suspense that could not be proven to be new, since
they were too old or ahead of the clock, and accounts them: each once, however
often it waits there or came meanwhile. One that nobody held the address of then
waits for a user. Who decided, when and why is kept; see "spool decisions".`,
		`  tollbridge spool suspense
  tollbridge spool release --for "below floor" --exporter edge-1 --because "edge-1 was cut off for three hours"
  tollbridge spool release 17 18 --because "checked by hand"`)
}

func newReject(where *state.Flags) *cobra.Command {
	return newDecide(where, asm.RejectFlows, "Give up suspended flows: they are never accounted",
		`Reject takes flows out of suspense for good. The books show them as rejected.
Who decided, when and why is kept; see "spool decisions".`,
		`  tollbridge spool reject --for unmapped --exporter lab --because "the lab is not billed"`)
}

func newDecide(where *state.Flags, what, short, long, example string) *cobra.Command {
	c := asm.Command{What: what}
	cmd := &cobra.Command{
		Use: what + " [ID...]", Short: short,
		Long:    long + "\n\nThe daemon must be running: a decision is an entry of its journal.",
		Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				id, err := strconv.ParseUint(a, 10, 64)
				if err != nil {
					return fmt.Errorf("%q is not an ID: take one from \"spool suspense\"", a)
				}
				c.Flows.IDs = append(c.Flows.IDs, id)
			}
			return order(cmd.Context(), where, cmd.OutOrStdout(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Flows.Exporter, "exporter", "", "only flows of this exporter")
	flags.StringVar(&c.Flows.For, "for", "", fmt.Sprintf("only flows suspended for this: one of %q", asm.Reasons()))
	flags.BoolVar(&c.Flows.All, "all", false, "all flows in suspense, where nothing else says which")
	flags.StringVar(&c.Reason, "because", "", "why, for the books (required)")
	_ = cmd.MarkFlagRequired("because") // it is defined above
	return cmd
}

func newDecisions(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "decisions",
		Short:   "List what operators ordered: who, when, why, and what it came to",
		Example: "  tollbridge spool decisions -o csv",
	}
	return where.List(cmd, func(ctx context.Context, s *spool.Spool) (listing.Table, error) {
		list, err := s.Decisions(ctx)
		if err != nil {
			return listing.Table{}, err
		}
		type view struct {
			Position uint64     `json:"journal_position"`
			At       time.Time  `json:"at"`
			By       string     `json:"by"`
			What     string     `json:"what"`
			On       string     `json:"on"`
			Reason   string     `json:"because"`
			Count    acct.Count `json:"count"`
		}
		views := make([]view, len(list))
		t := listing.Table{Columns: []string{"at", "by", "what", "on", "because", "records", "octets", "journal_position"}, Value: views}
		for i, d := range list {
			v := view{d.Position, time.Unix(0, d.At).UTC(), d.By, d.What, d.On, d.Reason, d.Count}
			views[i] = v
			t.Add(listing.Time(v.At), v.By, v.What, v.On, v.Reason, v.Count.Records, v.Count.Octets, v.Position)
		}
		return t, nil
	})
}
