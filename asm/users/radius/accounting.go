package radius

import (
	"net/netip"
	"strings"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"

	"tollbridge/asm/users"
)

// An accounting is what an Accounting-Request says of a session.
type accounting struct {
	status rfc2866.AcctStatusType
	event  users.Event
	skewed bool // its Event-Timestamp was not believed
}

// read reads an Accounting-Request that arrived at a moment. Errors are a
// *PacketError. The event has no kind where nothing is to be noted.
func (s *Server) read(p *radius.Packet, c *Client, arrived time.Time) (a accounting, err error) {
	status, found, err := integer(p.Attributes, rfc2866.AcctStatusType_Type)
	switch {
	case err != nil:
		return a, &PacketError{CauseAttribute, err}
	case !found:
		return a, malformed(CauseAttribute, "Acct-Status-Type is missing")
	}
	a.status = rfc2866.AcctStatusType(status)
	a.event.Source, a.event.NAS = Source, nas(p.Attributes, c)
	if a.event.At, a.skewed, err = s.eventTime(p.Attributes, arrived); err != nil {
		return a, &PacketError{CauseAttribute, err}
	}
	switch a.status {
	case rfc2866.AcctStatusType_Value_AccountingOn, rfc2866.AcctStatusType_Value_AccountingOff:
		a.event.Kind = users.EndAll
	case rfc2866.AcctStatusType_Value_Start, rfc2866.AcctStatusType_Value_InterimUpdate, rfc2866.AcctStatusType_Value_Stop:
		if err := s.readSession(&a, p.Attributes); err != nil {
			return a, err
		}
		if a.event.Kind == users.Begin && (a.event.User == "" || len(a.event.Prefixes) == 0) {
			a.event.Kind = 0 // its address follows in an Interim-Update
			return a, nil
		}
	default:
		return a, nil
	}
	if a.event, err = a.event.Normalize(); err != nil {
		return a, &PacketError{CauseAttribute, err}
	}
	return a, nil
}

// readSession reads what a Start, Interim-Update or Stop says.
func (s *Server) readSession(a *accounting, all radius.Attributes) error {
	id := first(all, rfc2866.AcctSessionID_Type)
	if id == nil {
		return malformed(CauseAttribute, "Acct-Session-Id is missing")
	}
	e := &a.event
	e.ID = users.Key(e.NAS + "/" + text(id))
	duration, _, err := integer(all, rfc2866.AcctSessionTime_Type)
	if err != nil {
		return &PacketError{CauseAttribute, err}
	}
	e.Since = e.At.Add(-time.Duration(duration) * time.Second)
	timeout, _, err := integer(all, rfc2865.SessionTimeout_Type)
	if err != nil {
		return &PacketError{CauseAttribute, err}
	}
	if e.Prefixes, err = prefixes(all); err != nil {
		return &PacketError{CauseAttribute, err}
	}
	if e.User, err = s.user(all); err != nil {
		return err
	}
	if id := first(all, rfc2866.AcctMultiSessionID_Type); id != nil {
		e.MultiSession = text(id)
	}
	if s.cfg.Realm {
		if at := strings.LastIndexByte(e.User, '@'); at >= 0 {
			e.Realm = e.User[at+1:]
		}
	}
	e.Attributes = avps(all, s.cfg.Attributes)
	switch a.status {
	case rfc2866.AcctStatusType_Value_Stop:
		e.Kind = users.End
		return nil
	case rfc2866.AcctStatusType_Value_Start:
		e.Kind = users.Begin
	default:
		e.Kind = users.Update
	}
	e.Timeout = s.timeout(time.Duration(duration)*time.Second, time.Duration(timeout)*time.Second)
	return nil
}

// user returns whom a packet is about: the first of the attributes that name a
// user which it has. "" is nobody.
func (s *Server) user(all radius.Attributes) (string, error) {
	for _, t := range s.cfg.User {
		v := values(all, t)
		if len(v) == 0 {
			continue
		}
		name := strings.TrimRight(string(v[0]), "\x00")
		if err := users.CheckName(name); err != nil {
			return "", malformed(CauseAttribute, "attribute %d, the user's name, %w", t.Type, err)
		}
		if name != "" {
			return name, nil
		}
	}
	return "", nil
}

// timeout returns for how long a session lasts of which nothing more is heard;
// 0 for ever. The NAS ends one by itself when it has lasted for its
// Session-Timeout (RFC 2865, Section 5.27).
func (s *Server) timeout(lasted, sessionTimeout time.Duration) time.Duration {
	left := sessionTimeout - lasted
	if left <= 0 {
		left = sessionTimeout // this NAS says what is left
	}
	if s.cfg.Idle == 0 || left > 0 && left < s.cfg.Idle {
		return left
	}
	return s.cfg.Idle
}

// eventTime returns when what a packet tells of happened: its Event-Timestamp
// (RFC 2869, Section 5.3), else its arrival less the Acct-Delay-Time (RFC 2866,
// Section 5.2). A clock that is ahead of ours by more than ClockTolerance, or
// behind by more than MaxDelay, is not believed.
func (s *Server) eventTime(all radius.Attributes, arrived time.Time) (at time.Time, skewed bool, err error) {
	delay, _, err := integer(all, rfc2866.AcctDelayTime_Type)
	if err != nil {
		return at, false, err
	}
	sent := arrived.Add(-min(time.Duration(delay)*time.Second, s.cfg.MaxDelay))
	stamp, found, err := integer(all, rfc2869.EventTimestamp_Type)
	if err != nil || !found {
		return sent, false, err
	}
	at = time.Unix(int64(stamp), 0)
	if at.After(arrived.Add(s.cfg.ClockTolerance)) || at.Before(arrived.Add(-s.cfg.MaxDelay)) {
		return sent, true, nil
	}
	return at, false, nil
}

// nas returns who a packet's NAS is: what it calls itself, below the name of
// the client, so that none can speak for another's. A NAS has the same in all
// its packets.
func nas(all radius.Attributes, c *Client) string {
	name := c.Name
	if id := first(all, rfc2865.NASIdentifier_Type); id != nil {
		name += "/" + text(id)
	}
	for _, t := range []radius.Type{rfc3162.NASIPv6Address_Type, rfc2865.NASIPAddress_Type} {
		if a, ok := netip.AddrFromSlice(first(all, t)); ok {
			return users.Key(name + "/" + a.String())
		}
	}
	return users.Key(name)
}
