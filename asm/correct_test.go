package asm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// A correction is a record of its own that names what it corrects. It is booked
// apart from what exporters sent, and nothing that was cut changes.
func TestAdjust(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(10 * time.Minute)
	b.checkpoint()
	before := len(b.s.records)
	wrong := b.s.records[before-1]

	credit := Adjustment{
		SessionID: wrong.SessionID, Number: wrong.Number, Credit: true, Usage: acct.Usage{InputOctets: 60, InputPackets: 1},
		User: wrong.User, MultiSessionID: wrong.MultiSessionID, Framed: wrong.Framed, Start: wrong.Start, End: wrong.End,
	}
	debit := credit
	debit.Credit, debit.User, debit.MultiSessionID, debit.Class = false, "bob", "", "gold"
	b.order(Command{What: AdjustUsage, Adjust: []Adjustment{credit, debit}})
	b.checkpoint()
	b.restart()
	b.checkpoint()
	cut := b.s.records[before:]
	if len(cut) != 2 {
		t.Fatalf("%d records, want a credit and a debit", len(cut))
	}
	for i, a := range []Adjustment{credit, debit} {
		r := cut[i]
		want := acct.Correction{SessionID: wrong.SessionID, Number: wrong.Number, Credit: a.Credit, Reason: "a test"}
		if r.Corrects == nil || *r.Corrects != want || r.Type != acct.Event || r.Number != 0 || r.SessionID == wrong.SessionID ||
			r.User != a.User || r.Usage != a.Usage || r.MultiSessionID != a.MultiSessionID || !r.Start.Equal(wrong.Start) {
			t.Errorf("record %d: %+v corrects %+v", i, r, r.Corrects)
		}
		var classes []acct.ClassUsage
		if a.Class != "" {
			classes = []acct.ClassUsage{{Class: a.Class, Usage: a.Usage, Increase: a.Usage}}
		}
		if !reflect.DeepEqual(r.Classes, classes) {
			t.Errorf("record %d has classes %+v, want %+v", i, r.Classes, classes)
		}
		key := acct.LedgerKey{Exporter: bookOf(a.Credit), Interval: b.clock.Unix()}
		if row := b.s.ledger[key]; row.Received != count(1, 60, 1) || row.Accounted != count(1, 60, 1) {
			t.Errorf("%s has %+v", key.Exporter, row)
		}
	}
	if cut[0].SessionID == cut[1].SessionID {
		t.Error("two corrections have one Session-Id")
	}
	if d := b.s.decisions[0]; d.Count != count(2, 120, 2) || !strings.HasPrefix(d.On, "credit ann: "+wrong.SessionID) || !strings.Contains(d.On, `debit of "gold", bob`) {
		t.Errorf("decision %+v", d)
	}
}

func TestAdjustRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*Command){
		"session_id":  func(c *Command) { c.Adjust[0].SessionID = "" },
		"user":        func(c *Command) { c.Adjust[0].User = "a\x00b" },
		"usage: want": func(c *Command) { c.Adjust[0].Usage = acct.Usage{} },
		"class":       func(c *Command) { c.Adjust[0].Class = "a\x00b" },
		"at most":     func(c *Command) { c.Adjust[0].Usage.OutputOctets = acct.MaxOctets + 1 },
		"want 1 to":   func(c *Command) { c.Adjust = nil },
	} {
		c := Command{What: AdjustUsage, By: "ann", Reason: "why", Adjust: []Adjustment{{SessionID: "a;1;2", User: "bob", Usage: acct.Usage{InputOctets: 1}}}}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		if spoil(&c); !errors.Is(c.Validate(), ErrCommand) || !strings.Contains(c.Validate().Error(), want) {
			t.Errorf("%v, want it to say %s", c.Validate(), want)
		}
	}
}
