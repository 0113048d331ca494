package asm

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// An Adjustment is one correction that a Command orders: usage to be added to
// what a user was charged by an earlier record, or to be taken away. It names
// all that the correcting record says, so that carrying it out needs nothing
// that may have been forgotten.
type Adjustment struct {
	SessionID string     `json:"session_id"` // of the record that was wrong
	Number    uint32     `json:"number"`     // likewise
	Credit    bool       `json:"credit"`     // take the usage away
	Usage     acct.Usage `json:"usage"`
	Class     string     `json:"class,omitempty"` // of the usage; "" for none

	User           string           `json:"user"`
	Realm          string           `json:"realm,omitempty"`
	MultiSessionID string           `json:"multi_session_id,omitempty"`
	Framed         netip.Prefix     `json:"framed,omitzero"`
	Attributes     []acct.Attribute `json:"attributes,omitempty"`
	Layer          acct.Layer       `json:"layer,omitempty"`
	Start          time.Time        `json:"start,omitzero"` // the time that the usage was in
	End            time.Time        `json:"end,omitzero"`
}

// maxAdjustments is how many one Command may order.
const maxAdjustments = 10_000

// validate returns what is wrong with a, nil for nothing.
func (a *Adjustment) validate() error {
	u := &a.Usage
	switch {
	case a.SessionID == "":
		return fmt.Errorf("session_id: want that of the record to be corrected")
	case a.User == "":
		return fmt.Errorf("user: want whom it is for")
	case *u == acct.Usage{}:
		return fmt.Errorf("usage: want some")
	}
	if err := users.CheckName(a.User); err != nil {
		return fmt.Errorf("user %w", err)
	}
	if err := users.CheckName(a.Class); err != nil {
		return fmt.Errorf("class %w", err)
	}
	for _, v := range []uint64{u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets} {
		if v > acct.MaxOctets {
			return fmt.Errorf("usage: want at most %d", uint64(acct.MaxOctets))
		}
	}
	return nil
}

func (a *Adjustment) String() string {
	what := "debit"
	if a.Credit {
		what = "credit"
	}
	if a.Class != "" {
		what = fmt.Sprintf("%s of %q,", what, a.Class)
	}
	return fmt.Sprintf("%s %s: %s/%d", what, a.User, a.SessionID, a.Number)
}

// adjust makes an EVENT record of each correction that c orders, by the journal
// entry at position: nothing that was cut is ever changed. It returns what they
// come to.
func (m *Module) adjust(position uint64, c *Command) (total acct.Count, on string) {
	var said []string
	for i := range c.Adjust {
		a := &c.Adjust[i]
		r := acct.Record{
			Type: acct.Event, MultiSessionID: a.MultiSessionID,
			User: a.User, Realm: a.Realm, Framed: a.Framed, Attributes: a.Attributes, Layer: a.Layer,
			Start: a.Start, End: a.End, Event: milliTime(m.millis()), Usage: a.Usage, Increase: a.Usage,
			Corrects: &acct.Correction{SessionID: a.SessionID, Number: a.Number, Credit: a.Credit, Reason: c.Reason},
		}
		if a.Class != "" {
			r.Classes = []acct.ClassUsage{{Class: a.Class, Usage: a.Usage, Increase: a.Usage, ZeroRated: m.settings.zeroRated(a.Class)}}
		}
		if r.Realm == "" {
			r.Realm = m.settings.DestinationRealm
		}
		m.correctBy(r, []TracedFlow{{Position: position, Endpoints: "by order", Start: a.Start, End: a.End, Usage: a.Usage}})
		total = total.Plus(usageCount(a.Usage))
		if len(said) < 3 {
			said = append(said, a.String())
		}
	}
	if more := len(c.Adjust) - len(said); more > 0 {
		said = append(said, fmt.Sprintf("%d more", more))
	}
	return total, strings.Join(said, ", ")
}

// usageCount returns what the books say of a correction by u.
func usageCount(u acct.Usage) acct.Count {
	return acct.Count{Records: 1, Octets: u.InputOctets + u.OutputOctets, Packets: u.InputPackets + u.OutputPackets}
}

// correctBy books and cuts r, which corrects another record and lacks but its
// Session-Id: credits and debits have books of their own, which balance like
// any other. It returns the records, several if one would be too large. What
// flows it is about, a tracer is told, with the user and the books filled in.
func (m *Module) correctBy(r acct.Record, flows []TracedFlow) []acct.Record {
	key := acct.LedgerKey{Exporter: bookOf(r.Corrects.Credit), Interval: m.interval}
	n := usageCount(r.Usage)
	row := m.ledger.row(key)
	row.Received = row.Received.Plus(n)
	row.Accounted = row.Accounted.Plus(n)
	r.Shares = []acct.Share{{LedgerKey: key, Count: n}}
	cut := m.emitEvent(r)
	if m.tracer != nil {
		for i := range flows {
			f := &flows[i]
			f.LedgerKey, f.User = key, r.User
			if f.Count = usageCount(f.Usage); i > 0 {
				f.Count.Records = 0 // it is one record in its book, whatever it is about
			}
			m.tracer.Flow(0, *f)
		}
		m.tracer.Record(0, &cut[0])
	}
	return cut
}

// bookOf returns the name of the book of credits, or of debits.
func bookOf(credit bool) string {
	if credit {
		return acct.CreditBook
	}
	return acct.DebitBook
}
