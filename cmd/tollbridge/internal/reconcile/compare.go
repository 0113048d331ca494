package reconcile

import (
	"iter"
	"strings"

	"tollbridge/asm/acct"
)

// A Kind says how two sides differ about a record.
type Kind string

const (
	Missing   Kind = "missing"   // we have it, they don't
	Extra     Kind = "extra"     // they have it, we don't
	Different Kind = "different" // its usage, user or type is another
	Double    Kind = "double"    // a side has it more than once
)

// A Finding is one way in which a record differs.
type Finding struct {
	Kind   Kind    `json:"kind"`
	Ours   *Record `json:"ours,omitempty"`   // nil where we don't have it
	Theirs *Record `json:"theirs,omitempty"` // nil where they don't have it
	Side   string  `json:"side,omitempty"`   // of a Double: "ours" or "theirs"
	Times  int     `json:"times,omitempty"`  // of a Double
}

// Record returns the record that f is about.
func (f *Finding) Record() *Record {
	if f.Ours != nil {
		return f.Ours
	}
	return f.Theirs
}

// A Session is what two sides have of one that they differ about.
type Session struct {
	SessionID string     `json:"session_id"`
	User      string     `json:"user"`
	Findings  []Finding  `json:"findings"` // at most maxFindings
	Omitted   int        `json:"omitted_findings,omitempty"`
	Ours      acct.Usage `json:"ours"`   // what our records come to
	Theirs    acct.Usage `json:"theirs"` // what theirs come to
}

// maxFindings bounds those of one session, whose records can be many.
const maxFindings = 1000

// A Side is what one side has in all. Where records say it cumulatively the
// one with the highest number counts.
type Side struct {
	Sessions uint64     `json:"sessions"`
	Records  uint64     `json:"records"`
	Usage    acct.Usage `json:"usage"`
	Credits  acct.Usage `json:"credits"` // what corrections take away; not in Usage
}

// A Summary is what a comparison comes to.
type Summary struct {
	Ours      Side   `json:"ours"`
	Theirs    Side   `json:"theirs"`
	Equal     uint64 `json:"equal_sessions"`
	Differing uint64 `json:"differing_sessions"`
	Missing   uint64 `json:"missing"`
	Extra     uint64 `json:"extra"`
	Different uint64 `json:"different"`
	Double    uint64 `json:"double"`
}

// Agree reports whether the sides have the same.
func (s *Summary) Agree() bool { return s.Differing == 0 }

// Compare reads two sides, each in order, and calls visit for every session
// that they differ about. Its error ends the comparison. Where the two have
// other names for a user, known says whether it is the same; nil never does.
func Compare(ours, theirs iter.Seq2[Record, error], known func(ours, theirs string) bool, visit func(Session) error) (Summary, error) {
	var sum Summary
	if known == nil {
		known = func(ours, theirs string) bool { return false }
	}
	a, stopA := groups(ours)
	defer stopA()
	b, stopB := groups(theirs)
	defer stopB()
	x, err := a()
	if err != nil {
		return sum, err
	}
	y, err := b()
	if err != nil {
		return sum, err
	}
	for x != nil || y != nil {
		var mine, other []Record
		switch {
		case y == nil || x != nil && x[0].SessionID < y[0].SessionID:
			mine = x
		case x == nil || y[0].SessionID < x[0].SessionID:
			other = y
		default:
			mine, other = x, y
		}
		s := sum.session(mine, other, known)
		if len(s.Findings) > 0 {
			sum.Differing++
			if err := visit(s); err != nil {
				return sum, err
			}
		} else {
			sum.Equal++
		}
		if mine != nil {
			if x, err = a(); err != nil {
				return sum, err
			}
		}
		if other != nil {
			if y, err = b(); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// groups hands out the records of one session after the other, nil at the end.
func groups(records iter.Seq2[Record, error]) (next func() ([]Record, error), stop func()) {
	pull, stop := iter.Pull2(records)
	var ahead *Record
	return func() ([]Record, error) {
		var group []Record
		if ahead != nil {
			group, ahead = append(group, *ahead), nil
		}
		for {
			r, err, ok := pull()
			if !ok || err != nil {
				return group, err
			}
			if len(group) > 0 && r.SessionID != group[0].SessionID {
				ahead = &r
				return group, nil
			}
			group = append(group, r)
		}
	}, stop
}

// session compares what both sides have of one session, ordered by number.
func (sum *Summary) session(ours, theirs []Record, known func(ours, theirs string) bool) (s Session) {
	s.Ours, s.Theirs = sum.Ours.add(ours), sum.Theirs.add(theirs)
	first := ours
	if len(first) == 0 {
		first = theirs
	}
	s.SessionID = strings.Clone(first[0].SessionID)
	for _, r := range first {
		if r.User != "" {
			s.User = r.User
			break
		}
	}
	find := func(count *uint64, f Finding) {
		*count++
		if len(s.Findings) >= maxFindings {
			s.Omitted++
			return
		}
		s.Findings = append(s.Findings, f)
	}
	for len(ours) > 0 || len(theirs) > 0 {
		mine, other := times(ours), times(theirs)
		switch {
		case len(theirs) == 0 || len(ours) > 0 && ours[0].Number < theirs[0].Number:
			other = 0
			find(&sum.Missing, Finding{Kind: Missing, Ours: &ours[0]})
		case len(ours) == 0 || theirs[0].Number < ours[0].Number:
			mine = 0
			find(&sum.Extra, Finding{Kind: Extra, Theirs: &theirs[0]})
		case !ours[0].same(&theirs[0], known):
			find(&sum.Different, Finding{Kind: Different, Ours: &ours[0], Theirs: &theirs[0]})
		}
		if mine > 1 {
			find(&sum.Double, Finding{Kind: Double, Ours: &ours[0], Side: "ours", Times: mine})
		}
		if other > 1 {
			find(&sum.Double, Finding{Kind: Double, Theirs: &theirs[0], Side: "theirs", Times: other})
		}
		ours, theirs = ours[mine:], theirs[other:]
	}
	return s
}

// times returns how many records at the start have the same number.
func times(records []Record) int {
	n := 0
	for n < len(records) && records[n].Number == records[0].Number {
		n++
	}
	return n
}

// add counts the records of a session, and returns what they come to. Of one
// that is there twice the first counts.
func (s *Side) add(records []Record) (total acct.Usage) {
	if len(records) == 0 {
		return total
	}
	s.Sessions++
	s.Records += uint64(len(records))
	var latest acct.Usage
	for i := 0; i < len(records); i += times(records[i:]) {
		if r := &records[i]; r.Credit {
			s.Credits = s.Credits.Plus(r.Usage)
		} else if r.Type == acct.Event {
			total = total.Plus(r.Usage)
		} else {
			latest = r.Usage
		}
	}
	total = total.Plus(latest)
	s.Usage = s.Usage.Plus(total)
	return total
}
