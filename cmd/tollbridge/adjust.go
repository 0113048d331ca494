package main

import (
	"context"
	"fmt"
	"slices"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/control"
)

// adjust looks the record up and orders its correction.
func (b *bridge) adjust(ctx context.Context, in control.Adjustment) (acct.Decision, error) {
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
func (b *bridge) corrected(ctx context.Context, in *control.Adjustment) (asm.Adjustment, error) {
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
