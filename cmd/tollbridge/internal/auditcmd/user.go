package auditcmd

import (
	"context"
	"fmt"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/spool"
)

// A Part is what a row of the ledger gave to an accounting record of a
// user, or to usage of theirs that is not cut yet.
type Part struct {
	Exporter  string    `json:"exporter"`
	Domain    uint32    `json:"domain"`
	Interval  time.Time `json:"interval"`
	State     string    `json:"state"` // of delivery, or open
	ID        uint64    `json:"id,omitempty"`
	SessionID string    `json:"session_id"`
	Number    uint32    `json:"number"`
	Type      string    `json:"type,omitempty"`
	acct.Count
	Corrects *acct.Correction `json:"corrects,omitempty"`
}

// userTable lists what the rows that sel chooses gave to a user, and what
// corrections gave or took away: a credit counts against the total. Records
// that were settled and let go since are not listed any more.
func userTable(ctx context.Context, s *spool.Spool, user string, sel spool.Selection) (listing.Table, error) {
	views := []Part{}
	add := func(v Part, shares []acct.Share) {
		for _, sh := range shares {
			if !sel.Has(sh.LedgerKey) {
				continue
			}
			v.Exporter, v.Domain, v.Interval, v.Count = sh.Exporter, sh.Domain, listing.UnixTime(sh.Interval), sh.Count
			views = append(views, v)
		}
	}
	records, err := s.List(ctx, spool.Filter{User: user})
	if err != nil {
		return listing.Table{}, err
	}
	for _, l := range records {
		r := &l.Record
		add(Part{State: l.State.String(), ID: l.ID, SessionID: r.SessionID, Number: r.Number, Type: r.Type.String(), Corrects: r.Corrects}, r.Shares)
	}
	sessions, err := s.Sessions(ctx, 0, 0)
	if err != nil {
		return listing.Table{}, err
	}
	for _, x := range sessions {
		if x.User == user {
			add(Part{State: "open", SessionID: x.SessionID, Number: x.Number}, x.Open)
		}
	}
	t := listing.Table{Value: views, Columns: []string{"exporter", "domain", "interval", "state", "records", "octets", "packets", "id", "type", "number", "session_id", "corrects"}}
	var sum, credited acct.Count
	for _, v := range views {
		id, corrects := "", ""
		if v.ID != 0 {
			id = fmt.Sprint(v.ID)
		}
		if c := v.Corrects; c != nil {
			corrects = fmt.Sprintf("%s/%d: %s", c.SessionID, c.Number, c.Reason)
		}
		t.Add(v.Exporter, v.Domain, listing.Time(v.Interval), v.State, v.Records, v.Octets, v.Packets, id, listing.RecordType(v.Type, v.Corrects), v.Number, v.SessionID, corrects)
		if v.Corrects != nil && v.Corrects.Credit {
			credited = credited.Plus(v.Count)
		} else {
			sum = sum.Plus(v.Count)
		}
	}
	sum = sum.Minus(credited)
	t.Add("total", "", "", "", sum.Records, sum.Octets, sum.Packets, "", "", "", "", "")
	return t, nil
}

// A moment is a time given on the command line: a date, an RFC 3339 time, or
// how long ago it was.
type moment struct {
	time.Time
	text string
}

// String implements pflag.Value.
func (m *moment) String() string { return m.text }

// Type is the flag's type in help texts.
func (m *moment) Type() string { return "TIME" }

// Set reads a time.
func (m *moment) Set(s string) error {
	m.text = s
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		m.Time = time.Now().Add(-ago)
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf("%q is not a time: write it like 2026-11-22, 2026-11-22T13:00:00Z, or 24h for that long ago", s)
}
