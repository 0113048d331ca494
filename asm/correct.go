package asm

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tollbridge/asm/acct"
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

// count returns what the books say of a.
func (a *Adjustment) count() acct.Count {
	u := &a.Usage
	return acct.Count{Records: 1, Octets: u.InputOctets + u.OutputOctets, Packets: u.InputPackets + u.OutputPackets}
}

// validate returns what is wrong with a, nil for nothing.
func (a *Adjustment) validate() error {
	u := &a.Usage
	switch {
	case a.SessionID == "":
		return fmt.Errorf("session_id: want that of the record to be corrected")
	case a.User == "" || !isName(a.User):
		return fmt.Errorf("user: want whom it is for")
	case *u == acct.Usage{}:
		return fmt.Errorf("usage: want some")
	}
	for _, v := range []uint64{u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets} {
		if v > acct.MaxOctets {
			return fmt.Errorf("usage: want at most %d", uint64(acct.MaxOctets))
		}
	}
	return nil
}

// book returns the exporter's name under which a is in the ledger: credits and
// debits have books of their own, which balance like any other.
func (a *Adjustment) book() string {
	if a.Credit {
		return acct.CreditBook
	}
	return acct.DebitBook
}

func (a *Adjustment) String() string {
	what := "debit"
	if a.Credit {
		what = "credit"
	}
	return fmt.Sprintf("%s %s: %s/%d", what, a.User, a.SessionID, a.Number)
}

// adjust makes an EVENT record of each correction that c orders: nothing that
// was cut is ever changed. It returns what they come to.
func (m *Module) adjust(c *Command) (total acct.Count, on string) {
	var said []string
	for i := range c.Adjust {
		a := &c.Adjust[i]
		n := a.count()
		key := acct.LedgerKey{Exporter: a.book(), Interval: m.interval}
		row := m.ledger.row(key)
		row.Received = row.Received.Plus(n)
		row.Accounted = row.Accounted.Plus(n)
		now := milliTime(m.millis())
		r := acct.Record{
			SessionID: m.newSessionID(), Type: acct.Event, MultiSessionID: a.MultiSessionID,
			User: a.User, Realm: a.Realm, Framed: a.Framed, Attributes: a.Attributes, Layer: a.Layer,
			Start: a.Start, End: a.End, Event: now, Usage: a.Usage, Increase: a.Usage,
			Corrects: &acct.Correction{SessionID: a.SessionID, Number: a.Number, Credit: a.Credit, Reason: c.Reason},
			Shares:   []acct.Share{{LedgerKey: key, Count: n}},
		}
		if r.Realm == "" {
			r.Realm = m.settings.DestinationRealm
		}
		m.records = append(m.records, r)
		total = total.Plus(n)
		if len(said) < 3 {
			said = append(said, a.String())
		}
	}
	if more := len(c.Adjust) - len(said); more > 0 {
		said = append(said, fmt.Sprintf("%d more", more))
	}
	return total, strings.Join(said, ", ")
}
