package credit

import (
	"cmp"
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// A Session is the credit control of one accounting session, as it is stored
// before each request (RFC 8506, Section 5). An EVENT record has one of its
// own, of a single request.
//
// Amounts are octets since the session's start. The zero amount of Limit with
// Granted false is "nothing granted yet".
type Session struct {
	SessionID  string // of the accounting session
	Generation uint32 // a server that lost its state is told anew, under another Session-Id
	User       string
	Realm      string           // Destination-Realm; "" for the default
	Event      bool             // one-time event: debited at once, or refunded (RFC 8506, Section 6)
	Refund     bool             // likewise: what is given back
	Attributes []acct.Attribute // of its records: which session of which NAS it is
	Source     string           // likewise: which source of bindings told of it,
	NAS        string           // and which of its NASes

	Services []Service // in order of RatingGroup
	Begun    bool      // the server has answered the first request
	Ended    bool      // the STOP record has come
	Closed   bool      // nothing more is to be said to the server
	Aborted  bool      // the server wants it ended (RFC 6733, Section 8.5)
	Asked    bool      // the server wants to hear of it now (RFC 8506, Section 5.5)
	Why      string    // it was closed by something else than its end

	Next    uint32   // CC-Request-Number of the next request
	Pending *Request // built, and not answered
}

// A Service is the credit of one rating group in a Session.
type Service struct {
	RatingGroup uint32
	Used        acct.Usage // all there was
	Reported    acct.Usage // of Used, what the server has taken note of
	Granted     bool       // the server has granted something
	Limit       uint64     // Used may come to so much; with Granted
	Quota       uint64     // the latest grant
	Renew       time.Time  // the grant ends (Validity-Time); zero for never
	Final       bool       // there will be no more
	Free        bool       // no credit control is needed (4011)
	Exhausted   bool       // reported as such; until something is granted again
}

// Octets returns what has been used, in both directions.
func (v *Service) Octets() uint64 { return octets(v.Used) }

// State returns where v, of session s, stands, in a word for people: asking,
// granted, last, exhausted, free or closed.
func (v *Service) State(s *Session) string {
	switch {
	case s.Closed:
		return "closed"
	case v.Free:
		return "free"
	case v.Exhausted || v.Granted && octets(v.Used) > v.Limit:
		return "exhausted"
	case v.Final:
		return "last"
	case v.Granted:
		return "granted"
	}
	return "asking"
}

// A Request is a Credit-Control-Request as it was, or will be, sent: all
// copies of it are equal but for the T flag and the Hop-by-Hop Identifier.
type Request struct {
	Type     uint32 // CC-Request-Type
	Number   uint32 // CC-Request-Number
	EndToEnd uint32
	Sent     bool // a copy may have left and was not answered
	At       time.Time
	Used     []acct.Usage // of each service, the amount it brings Reported to
	Want     []bool       // of each service: more is requested
}

// octets is what a quota counts: both directions.
func octets(u acct.Usage) uint64 {
	return acct.Count{Octets: u.InputOctets}.Plus(acct.Count{Octets: u.OutputOctets}).Octets
}

// minus returns what u is more than v; cumulative usage never falls.
func minus(u, v acct.Usage) acct.Usage {
	return acct.Usage{
		InputOctets: u.InputOctets - min(u.InputOctets, v.InputOctets), OutputOctets: u.OutputOctets - min(u.OutputOctets, v.OutputOctets),
		InputPackets: u.InputPackets - min(u.InputPackets, v.InputPackets), OutputPackets: u.OutputPackets - min(u.OutputPackets, v.OutputPackets),
	}
}

// id is the Session-Id of the credit-control session (RFC 6733, Section 8.8).
func (s *Session) id() string {
	const suffix = ";credit"
	if s.Generation == 0 {
		return s.SessionID + suffix
	}
	return s.SessionID + suffix + "." + decimal(s.Generation)
}

func decimal(n uint32) string {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}

// service returns that of a rating group, made if there is none.
func (s *Session) service(ratingGroup uint32) *Service {
	i, found := slices.BinarySearchFunc(s.Services, ratingGroup, func(v Service, n uint32) int { return cmp.Compare(v.RatingGroup, n) })
	if !found {
		s.Services = slices.Insert(s.Services, i, Service{RatingGroup: ratingGroup})
		if p := s.Pending; p != nil {
			p.Used = slices.Insert(p.Used, i, acct.Usage{})
			p.Want = slices.Insert(p.Want, i, false)
		}
	}
	return &s.Services[i]
}

// apply takes an accounting record of the session, whose volumes are
// cumulative. A record that came before changes nothing. Rating says which
// group a class is charged to; false for one that needs no credit.
func (s *Session) apply(r *acct.Record, rating func(class string) (uint32, bool)) {
	sums := make(map[uint32]acct.Usage)
	classes := r.Classes
	if len(classes) == 0 {
		classes = []acct.ClassUsage{{Usage: r.Usage}}
	}
	for _, c := range classes {
		if group, charged := rating(c.Class); charged {
			sums[group] = sums[group].Plus(c.Usage)
		}
	}
	for group, u := range sums {
		v := s.service(group)
		if octets(u) > octets(v.Used) || s.Event {
			v.Used = u
		}
	}
	s.Ended = s.Ended || r.Type == acct.Stop || r.Type == acct.Event
}

// request decides what is to be said to the server now, and notes it as
// Pending; false if there is nothing. Ask at this threshold, in percent of a
// quota.
func (s *Session) request(now time.Time, threshold int, endToEnd func() uint32) bool {
	if s.Pending != nil || s.Closed {
		return false
	}
	p := Request{Type: update, At: now, Used: make([]acct.Usage, len(s.Services)), Want: make([]bool, len(s.Services))}
	switch {
	case s.Event:
		p.Type = event
	case !s.Begun && s.Ended && !s.used():
		s.Closed = true // it came and went without any usage
		return false
	case !s.Begun:
		p.Type = initial
	case s.Ended || s.Aborted:
		p.Type = termination
	}
	due := p.Type != update || s.Asked
	for i := range s.Services {
		v := &s.Services[i]
		p.Used[i] = v.Used
		if p.Type == termination || p.Type == event || v.Free {
			continue
		}
		p.Want[i] = !v.Final
		switch {
		case v.Used == v.Reported && v.Granted && (v.Renew.IsZero() || now.Before(v.Renew)):
			p.Want[i] = p.Type == initial
		case v.Final:
			// What was used beyond is told at the end.
			due = due || octets(v.Reported) < v.Limit && octets(v.Used) >= v.Limit
		default:
			due = due || !v.Granted || octets(v.Used) >= v.Limit-min(v.Limit, part(v.Quota, 100-threshold)) || !v.Renew.IsZero() && !now.Before(v.Renew)
		}
	}
	if !due {
		return false
	}
	p.Number, p.EndToEnd = s.Next, endToEnd()
	s.Next++
	s.Pending = &p
	return true
}

func (s *Session) used() bool {
	return slices.ContainsFunc(s.Services, func(v Service) bool { return v.Used != acct.Usage{} })
}

// part returns so many percent of n.
func part(n uint64, percent int) uint64 { return n/100*uint64(percent) + n%100*uint64(percent)/100 }

// An Exhausted says that a user's credit does not cover what he uses.
type Exhausted struct {
	SessionID   string // of the accounting session
	User        string
	RatingGroup uint32           // 0 with All
	All         bool             // the server refuses the whole session
	Used        uint64           // octets
	Limit       uint64           // octets
	Why         string           // for people
	Attributes  []acct.Attribute // of the session's accounting records
	Source, NAS string           // likewise
}

// exhausted returns that credit does not cover s, and why; the amounts are the
// caller's.
func (s *Session) exhausted(why string) Exhausted {
	return Exhausted{SessionID: s.SessionID, User: s.User, Why: why, Attributes: s.Attributes, Source: s.Source, NAS: s.NAS}
}

// allExhausted is exhausted for all of s.
func (s *Session) allExhausted(why string) Exhausted {
	e := s.exhausted(why)
	e.All = true
	for _, v := range s.Services {
		e.Used = acct.Count{Octets: e.Used}.Plus(acct.Count{Octets: octets(v.Used)}).Octets
		e.Limit = acct.Count{Octets: e.Limit}.Plus(acct.Count{Octets: v.Limit}).Octets
	}
	return e
}

const abortedWhy = "the server wants the session ended (Abort-Session-Request)"

// standing returns what was told of s to be exhausted and still is, if it goes on.
func (s *Session) standing() (e Exhausted, is bool) {
	switch {
	case s.Ended:
	case s.Aborted, s.Closed && slices.ContainsFunc(s.Services, func(v Service) bool { return v.Exhausted }):
		return s.allExhausted(cmp.Or(s.Why, abortedWhy)), true
	case s.Closed:
	default:
		for i := range s.Services {
			if v := &s.Services[i]; v.Exhausted && !v.Free {
				return v.exhausted(s, "its last units were used up, or more was refused, before"), true
			}
		}
	}
	return e, false
}

// exhausted is that of s for a quota.
func (v *Service) exhausted(s *Session, why string) Exhausted {
	v.Exhausted = true
	e := s.exhausted(why)
	e.RatingGroup, e.Used, e.Limit = v.RatingGroup, octets(v.Used), v.Limit
	return e
}

// answer takes the server's answer to Pending. It returns what to do with the
// request, and what was found exhausted by it.
func (s *Session) answer(a answer, now time.Time) (fate, []Exhausted) {
	p := s.Pending
	switch {
	case a.result == 0 || a.result/1000 == 3 || a.result == tooBusy || a.result == outOfSpace || a.result == unableToComply:
		return tryAgain, nil // the server, or the way to it, is at fault
	case a.result == unknownSession && p.Type != initial && p.Type != event:
		// The server lost its state. What it has taken note of is paid for;
		// the rest goes to a new session.
		s.Generation++
		s.Begun, s.Next, s.Pending = false, 0, nil
		for i := range s.Services {
			v := &s.Services[i]
			v.Granted, v.Final, v.Exhausted, v.Limit, v.Quota, v.Renew = false, false, false, 0, 0, time.Time{}
		}
		return goOn, nil
	}
	s.Pending, s.Asked = nil, false
	var out []Exhausted
	switch {
	case a.result/1000 == 2:
		s.Begun = true
		for i := range s.Services {
			s.Services[i].Reported = p.Used[i]
		}
		for _, g := range a.services {
			out = append(out, s.grant(g, now)...)
		}
		s.Closed = p.Type == termination || p.Type == event
	case a.result == creditNotApplicable:
		s.Closed, s.Why = true, "the server controls no credit of this user (4011)"
		for i := range s.Services {
			s.Services[i].Exhausted = false
		}
	case a.result == creditLimitReached || a.result == endUserServiceDenied || a.result == userUnknown:
		s.Closed, s.Why = true, a.String()
		for i := range s.Services {
			s.Services[i].Exhausted = true
		}
		out = append(out, s.allExhausted(s.Why))
	default:
		s.Closed, s.Why = true, a.String()
		return refused, nil
	}
	return goOn, append(out, s.beyond()...)
}

// grant takes what the server says of one rating group.
func (s *Session) grant(g grant, now time.Time) (out []Exhausted) {
	if !g.hasGroup && len(s.Services) != 1 {
		return nil // it is not said of which
	}
	v := &s.Services[0]
	if g.hasGroup {
		i, found := slices.BinarySearchFunc(s.Services, g.ratingGroup, func(v Service, n uint32) int { return cmp.Compare(v.RatingGroup, n) })
		if !found {
			return nil // we did not ask for it
		}
		v = &s.Services[i]
	}
	switch {
	case g.result == creditNotApplicable:
		v.Free = true
	case g.result != 0 && g.result/1000 != 2:
		v.Final, v.Granted = true, true
		if !v.Exhausted {
			out = append(out, v.exhausted(s, resultText(g.result)))
		}
	case g.hasOctets:
		v.Granted, v.Quota, v.Final, v.Exhausted, v.Renew = true, g.octets, g.final, false, time.Time{}
		v.Limit = acct.Count{Octets: octets(v.Reported)}.Plus(acct.Count{Octets: g.octets}).Octets
		if g.validity > 0 {
			v.Renew = now.Add(time.Duration(g.validity) * time.Second)
		}
	case g.final:
		v.Final, v.Granted = true, true
	}
	return out
}

// beyond returns the services whose last grant is used up, each once.
func (s *Session) beyond() (out []Exhausted) {
	if s.Closed || s.Event {
		return nil
	}
	for i := range s.Services {
		v := &s.Services[i]
		if v.Final && !v.Free && !v.Exhausted && octets(v.Used) >= v.Limit {
			out = append(out, v.exhausted(s, "the last granted units are used up"))
		}
	}
	return out
}

// A fate is what becomes of a request.
type fate uint8

const (
	goOn     fate = iota // it is settled
	tryAgain             // send it again, elsewhere if possible
	refused              // for good: the session is without credit control
)
