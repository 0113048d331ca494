// Package nasreq makes events of user sessions from the Accounting-Requests
// that access servers send over Diameter (RFC 7155).
package nasreq

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"tollbridge/asm/users"
	"tollbridge/dict/avp"
)

// Source is the source of the events.
const Source = "diameter"

// How far the Event-Timestamp of a request may be from its arrival to be
// believed, else the arrival counts.
const (
	maxAhead = 5 * time.Minute
	maxDelay = 24 * time.Hour
)

// missed is how many Acct-Interim-Intervals may pass without a record before a
// session has ended: its STOP_RECORD is lost.
const missed = 3

// AVPs that tell of sessions and have no use elsewhere here.
const (
	sessionTimeout    = 27
	framedIPv6Address = 168
)

// attributes go with a session into its accounting records.
var attributes = map[uint32]bool{
	avp.Class: true, avp.CallingStationID: true, avp.CalledStationID: true, avp.NASIdentifier: true, avp.NASPort: true,
	avp.NASPortID: true, avp.NASPortType: true, avp.FramedInterfaceID: true, avp.ChargeableUserIdentity: true, avp.OperatorName: true,
}

// Read returns what a request that arrived at a moment says of a user session.
// ok is false where that is nothing: it is an EVENT_RECORD, or a START_RECORD
// without a user or an address, which may follow in an INTERIM_RECORD. Errors
// are of package avp or users.
func Read(avps []byte, arrived time.Time) (e users.Event, ok bool, err error) {
	e.Source = Source
	var kind, seconds, delay, timeout, interval uint32
	var list []users.Attribute
	at := time.Time{}
	for a, scanErr := range avp.Scan(avps) {
		err := scanErr
		if err == nil && a.Vendor == 0 {
			switch a.Code {
			case avp.SessionID:
				e.ID = users.Key(string(a.Data))
				list = append(list, users.Attribute{Code: avp.AcctSessionID, Data: e.ID}) // by which the session can be ended
			case avp.OriginHost:
				e.NAS = users.Key(string(a.Data))
			case avp.AccountingRecordType:
				kind, err = a.Uint32()
			case avp.UserName:
				e.User = string(a.Data)
			case avp.EventTimestamp:
				at, err = a.Time()
			case avp.AcctSessionTime:
				seconds, err = a.Uint32()
			case avp.AcctDelayTime:
				delay, err = a.Uint32()
			case sessionTimeout:
				timeout, err = a.Uint32()
			case avp.AcctInterimInterval:
				interval, err = a.Uint32()
			case avp.AcctMultiSessionID:
				e.MultiSession = string(a.Data)
			default:
				var p netip.Prefix
				if p, err = prefix(a); p.IsValid() {
					e.Prefixes = append(e.Prefixes, p)
				}
				if attributes[a.Code] {
					list = append(list, users.Attribute{Code: a.Code, Data: string(a.Data)})
				}
			}
		}
		if err != nil {
			return e, false, fmt.Errorf("nasreq: AVP %d: %w", a.Code, err)
		}
	}
	e.At = arrived.Add(-min(time.Duration(delay)*time.Second, maxDelay))
	if !at.IsZero() && at.Before(arrived.Add(maxAhead)) && at.After(arrived.Add(-maxDelay)) {
		e.At = at
	}
	e.At = e.At.Truncate(time.Millisecond)
	e.Since = e.At.Add(-time.Duration(seconds) * time.Second)
	e.Attributes = users.NewAttributes(list...)
	switch kind {
	case avp.StartRecord:
		e.Kind = users.Begin
	case avp.InterimRecord:
		e.Kind = users.Update
	case avp.StopRecord:
		e.Kind = users.End
	default:
		return e, false, nil
	}
	if e.Kind == users.Begin && (e.User == "" || len(e.Prefixes) == 0) {
		return e, false, nil
	}
	if e.Kind != users.End {
		e.Timeout = lifetime(time.Duration(timeout)*time.Second-time.Duration(seconds)*time.Second, missed*time.Duration(interval)*time.Second)
	}
	e, err = e.Normalize()
	return e, err == nil, err
}

// lifetime is the lesser of two times, of which one that is not positive is
// unknown.
func lifetime(a, b time.Duration) time.Duration {
	switch {
	case a <= 0:
		return max(b, 0)
	case b <= 0:
		return a
	}
	return min(a, b)
}

// prefix returns what an AVP gives to the user, invalid for any other AVP and
// for addresses that stand for a choice (RFC 7155, Section 4.4.10.5.1).
func prefix(a avp.AVP) (netip.Prefix, error) {
	switch a.Code {
	case avp.FramedIPAddress:
		if len(a.Data) != 4 {
			return netip.Prefix{}, &avp.DecodeError{What: "Framed-IP-Address", Err: avp.ErrLength}
		}
		if v := binary.BigEndian.Uint32(a.Data); v == 0 || v >= 0xFFFFFFFE {
			return netip.Prefix{}, nil
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(a.Data)), 32), nil
	case framedIPv6Address:
		if len(a.Data) != 16 {
			return netip.Prefix{}, &avp.DecodeError{What: "Framed-IPv6-Address", Err: avp.ErrLength}
		}
		return netip.PrefixFrom(netip.AddrFrom16([16]byte(a.Data)), 128), nil
	case avp.FramedIPv6Prefix, avp.DelegatedIPv6Prefix:
		if len(a.Data) < 2 || len(a.Data) > 18 {
			return netip.Prefix{}, &avp.DecodeError{What: "IPv6 prefix", Err: avp.ErrLength}
		}
		bits := int(a.Data[1])
		if bits > 128 || len(a.Data)-2 < (bits+7)/8 {
			return netip.Prefix{}, &avp.DecodeError{What: "IPv6 prefix", Err: avp.ErrValue}
		}
		if bits == 0 {
			return netip.Prefix{}, nil
		}
		var b [16]byte
		copy(b[:], a.Data[2:])
		return netip.PrefixFrom(netip.AddrFrom16(b), bits).Masked(), nil
	}
	return netip.Prefix{}, nil
}
