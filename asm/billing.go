package asm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/dict"
)

// operatorName is the code of RADIUS attribute Operator-Name (RFC 5580,
// Section 4.1).
const operatorName = 126

func (s *Settings) validateBilling() error {
	if s.TimeZone != "" {
		if _, err := users.LoadZone(s.TimeZone); err != nil {
			return fmt.Errorf("time_zone: %w", err)
		}
	}
	switch {
	case s.BillingDay < 0 || s.BillingDay > 31:
		return fmt.Errorf("billing_day %d: want 1 to 31, or 0 for no billing cycles", s.BillingDay)
	case s.BillingDay > 0 && s.TimeZone == "":
		return errors.New("billing_day: needs a time_zone: a day begins somewhere")
	}
	for i, r := range s.Realms {
		switch {
		case r.Realm == "" || slices.ContainsFunc(s.Realms[:i], func(q RealmSettings) bool { return q.Realm == r.Realm }):
			return fmt.Errorf("realms[%d]: realm %q: want the name of a realm, each once", i, r.Realm)
		case r.OperatorName != "" && (len(r.OperatorName) < 2 || !strings.ContainsRune("0123", rune(r.OperatorName[0]))):
			return fmt.Errorf("realms[%d] %s: operator_name %q: want its namespace first (RFC 5580, Section 4.1), such as 1visited.example", i, r.Realm, r.OperatorName)
		case len(r.OperatorName) > users.MaxName || len(r.Agreement) > users.MaxName:
			return fmt.Errorf("realms[%d] %s: operator_name, agreement: want at most %d octets", i, r.Realm, users.MaxName)
		}
		if r.TimeZone != "" {
			if _, err := users.LoadZone(r.TimeZone); err != nil {
				return fmt.Errorf("realms[%d] %s: time_zone: %w", i, r.Realm, err)
			}
		}
	}
	return nil
}

// realmOf returns what is particular to the realm of s, nil for nothing.
func (m *Module) realmOf(s *session) *RealmSettings {
	return m.realms[cmp.Or(s.realm, m.settings.DestinationRealm)]
}

// attributes returns what the source of s gave, and what its realm adds that
// it did not give.
func (m *Module) attributes(s *session) []acct.Attribute {
	r := m.realmOf(s)
	if r == nil {
		return s.attributes
	}
	all := slices.Clip(s.attributes)
	for _, a := range []acct.Attribute{
		{Code: operatorName, Data: []byte(r.OperatorName)},
		{Code: dict.RoamingAgreement, Vendor: m.settings.VendorID, Data: []byte(r.Agreement)},
	} {
		given := slices.ContainsFunc(all, func(b acct.Attribute) bool { return b.Code == a.Code && b.Vendor == a.Vendor })
		if len(a.Data) > 0 && !given {
			all = append(all, a)
		}
	}
	return all
}

// zone returns where the user of s has days, nil for nowhere.
func (m *Module) zone(s *session) *time.Location {
	name := s.timeZone
	if name == "" {
		if r := m.realmOf(s); r != nil {
			name = r.TimeZone
		}
	}
	if name = cmp.Or(name, m.settings.TimeZone); name == "" {
		return nil
	}
	z, err := users.LoadZone(name)
	if err != nil {
		// It was there when the binding or the settings were validated.
		m.logs.warn(m.log, "a time zone is not known any more: days begin in UTC", acct.LedgerKey{}, 0, "error", err)
		return time.UTC
	}
	return z
}

// midnight returns when the first day after a moment begins where the user of
// s is, Unix milliseconds, 0 if no zone is set.
func (m *Module) midnight(s *session, at int64) int64 {
	z := m.zone(s)
	if z == nil {
		return 0
	}
	return nextDay(time.UnixMilli(at).In(z)).UnixMilli()
}

// nextDay returns the first moment of the day after that of t, where t is. A
// day has 23, 24 or 25 hours, and need not begin at 0:00: clocks may be put
// forward just then.
func nextDay(t time.Time) time.Time {
	year, month, day := t.Date()
	next := time.Date(year, month, day+1, 0, 0, 0, 0, t.Location())
	if next.Hour() == 0 && next.Minute() == 0 && next.After(t) {
		return next
	}
	start, end := next.ZoneBounds()
	if next.Hour() < 12 && next.After(t) { // 0:00 is missing, and this is after it
		return start
	}
	return end // before it, or the whole day is missing
}

// cycleBegins reports whether a billing cycle begins with the day that begins
// at a moment in Unix milliseconds.
func (m *Module) cycleBegins(s *session, midnight int64) bool {
	z := m.zone(s)
	if z == nil || m.settings.BillingDay == 0 {
		return false
	}
	year, month, day := time.UnixMilli(midnight).In(z).Date()
	last := time.Date(year, month+1, 0, 12, 0, 0, 0, time.UTC).Day()
	return day == min(m.settings.BillingDay, last)
}

// tooOld reports whether s has reached the largest age of a session.
func (m *Module) tooOld(s *session, at int64) bool {
	age := m.settings.MaxSessionAge.Milliseconds()
	return age > 0 && at >= s.started+age
}
