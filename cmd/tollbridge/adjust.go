package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
)

// adjustCommand names the command of the control channel that carries an
// adjustment and answers with an acct.Decision.
const adjustCommand = "adjust"

// An adjustment is what "spool adjust" asks of the daemon.
type adjustment struct {
	ID        uint64     `json:"id,omitempty"`         // of the record in the outbox; or 0, and:
	SessionID string     `json:"session_id,omitempty"` // the record's
	Number    uint32     `json:"number"`               // likewise
	Credit    bool       `json:"credit"`
	All       bool       `json:"all,omitempty"` // all of the record's usage
	Usage     acct.Usage `json:"usage"`
	Class     string     `json:"class,omitempty"`    // of the record's, that the usage is of; "" for all of them
	ToClass   string     `json:"to_class,omitempty"` // of what is charged instead; "" for Class
	User      string     `json:"user,omitempty"`     // where the outbox no longer has the record
	To        string     `json:"to,omitempty"`       // the user who is charged what is taken away; "" for nobody
	By        string     `json:"by"`
	Reason    string     `json:"reason"`
}

// handleAdjust lets operators correct what was charged.
func (b *bridge) handleAdjust() { control.Handle(&b.control, adjustCommand, b.adjust) }

// adjust looks the record up and orders its correction.
func (b *bridge) adjust(ctx context.Context, in adjustment) (acct.Decision, error) {
	a, err := b.corrected(ctx, &in)
	if err != nil {
		return acct.Decision{}, err
	}
	c := asm.Command{What: asm.AdjustUsage, By: in.By, Reason: in.Reason, Adjust: []asm.Adjustment{a}}
	if in.To != "" || in.ToClass != "" {
		other := a
		other.Credit = !in.Credit
		if in.ToClass != "" {
			other.Class = in.ToClass
		}
		if in.To != "" {
			other.User, other.Realm, other.MultiSessionID, other.Attributes = in.To, "", "", nil // they are the first user's
		}
		c.Adjust = append(c.Adjust, other)
	}
	return b.decide(ctx, c)
}

// corrected returns the correction of the record that in names.
func (b *bridge) corrected(ctx context.Context, in *adjustment) (asm.Adjustment, error) {
	a := asm.Adjustment{SessionID: in.SessionID, Number: in.Number, Credit: in.Credit, Usage: in.Usage, Class: in.Class, User: in.User}
	var r acct.Record
	if in.ID != 0 {
		l, err := b.spool.Show(ctx, in.ID)
		if err != nil {
			return a, err
		}
		r = l.Record
	} else if list, err := b.spool.ShowNumber(ctx, in.SessionID, in.Number); err == nil && len(list) > 0 {
		r = list[0].Record
	} else if in.User == "" {
		return a, fmt.Errorf("the outbox no longer has record %s/%d: say with --user whose it was, as your AAA server has it", in.SessionID, in.Number)
	} else {
		return a, nil
	}
	if in.User != "" && in.User != r.User {
		return a, fmt.Errorf("record %s/%d is of user %q, not of %q", r.SessionID, r.Number, r.User, in.User)
	}
	if r.User == "" {
		return a, fmt.Errorf("record %s/%d is of no user: its AAA server corrects what it made of it", r.SessionID, r.Number)
	}
	charged := r.Usage
	if in.Class != "" {
		i := slices.IndexFunc(r.Classes, func(c acct.ClassUsage) bool { return c.Class == in.Class })
		if i < 0 {
			return a, fmt.Errorf("record %s/%d charges nothing of class %q: \"spool show\" tells of which it does", r.SessionID, r.Number, in.Class)
		}
		charged = r.Classes[i].Usage
	}
	if in.All {
		a.Usage = charged
	}
	if u, have := &a.Usage, &charged; in.Credit && (u.InputOctets > have.InputOctets || u.OutputOctets > have.OutputOctets ||
		u.InputPackets > have.InputPackets || u.OutputPackets > have.OutputPackets) {
		return a, fmt.Errorf("record %s/%d charges %+v: a credit of %+v is more than that", r.SessionID, r.Number, *have, *u)
	}
	a.SessionID, a.Number, a.User, a.Realm, a.MultiSessionID, a.Framed = r.SessionID, r.Number, r.User, r.Realm, r.MultiSessionID, r.Framed
	a.Attributes, a.Layer, a.Start, a.End = r.Attributes, r.Layer, r.Start, r.End
	return a, nil
}

func newSpoolAdjust(state *stateFlags) *cobra.Command {
	var in adjustment
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
		return state.decided(cmd.Context(), cmd.OutOrStdout(), adjustCommand, in)
	}
	return cmd
}
