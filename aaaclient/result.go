package aaaclient

import (
	"fmt"

	"tollbridge/dict/avp"
)

// A Fate is what becomes of a record by its answer.
type Fate uint8

const (
	Settle     Fate = iota // accounted
	Wait                   // try again, elsewhere if possible, after a while, for ever
	Reroute                // this peer's route fails: try another, once each, then quarantine
	Quarantine             // will not get better by trying
)

// String returns the fate's name in a configuration.
func (f Fate) String() string {
	switch f {
	case Settle:
		return "settle"
	case Wait:
		return "wait"
	case Reroute:
		return "reroute"
	case Quarantine:
		return "quarantine"
	}
	return fmt.Sprintf("Fate(%d)", uint8(f))
}

// A Code is a Result-Code, or an Experimental-Result-Code of a vendor (RFC
// 6733, Sections 7.1 and 7.7).
type Code struct {
	Vendor uint32 // 0 for a Result-Code
	Result uint32
}

// fates are those of the Result-Codes of RFC 6733, Section 7.1. An answer
// without one, 0, is a fault of the answering node and proves nothing about
// the record.
var fates = map[uint32]Fate{
	0: Wait,

	avp.ResultMultiRoundAuth: Quarantine,

	avp.ResultSuccess:        Settle,
	avp.ResultLimitedSuccess: Settle,

	avp.ResultCommandUnsupported:     Quarantine,
	avp.ResultUnableToDeliver:        Wait,
	avp.ResultRealmNotServed:         Reroute,
	avp.ResultTooBusy:                Wait,
	avp.ResultLoopDetected:           Reroute,
	avp.ResultRedirectIndication:     Reroute,
	avp.ResultApplicationUnsupported: Quarantine,
	avp.ResultInvalidHeaderBits:      Quarantine,
	avp.ResultInvalidAVPBits:         Quarantine,
	avp.ResultUnknownPeer:            Reroute,

	avp.ResultAuthenticationRejected: Wait,
	avp.ResultOutOfSpace:             Wait,
	avp.ResultElectionLost:           Wait,

	avp.ResultAVPUnsupported:        Quarantine,
	avp.ResultUnknownSessionID:      Quarantine,
	avp.ResultAuthorizationRejected: Quarantine,
	avp.ResultInvalidAVPValue:       Quarantine,
	avp.ResultMissingAVP:            Quarantine,
	avp.ResultResourcesExceeded:     Wait,
	avp.ResultContradictingAVPs:     Quarantine,
	avp.ResultAVPNotAllowed:         Quarantine,
	avp.ResultAVPOccursTooManyTimes: Quarantine,
	avp.ResultNoCommonApplication:   Reroute,
	avp.ResultUnsupportedVersion:    Reroute,
	avp.ResultUnableToComply:        Wait,
	avp.ResultInvalidBitInHeader:    Quarantine,
	avp.ResultInvalidAVPLength:      Quarantine,
	avp.ResultInvalidMessageLength:  Quarantine,
	avp.ResultInvalidAVPBitCombo:    Quarantine,
	avp.ResultNoCommonSecurity:      Reroute,
}

// DefaultFate returns the fate of a code where none is configured. Codes that
// the RFC does not name, and vendors' own, go by their class: 2xxx settles, 4xxx
// waits, all others quarantine (Sections 7.1 and 7.7).
func DefaultFate(c Code) Fate {
	if f, ok := fates[c.Result]; ok && (c.Vendor == 0 || c.Result == 0) {
		return f
	}
	switch c.Result / 1000 {
	case 2:
		return Settle
	case 4:
		return Wait
	}
	return Quarantine
}

// checkFate refuses what would lose records or never settle any.
func checkFate(c Code, f Fate) error {
	switch {
	case f > Quarantine:
		return fmt.Errorf("result code %d: %v is no fate", c.Result, f)
	case c.Result/1000 == 2 && c.Vendor == 0 && f != Settle:
		return fmt.Errorf("result code %d means success: it settles a record, whatever is configured", c.Result)
	}
	return nil
}

// judge returns the fate of a record by its answer.
func (c *Client) judge(a *answer) Fate {
	code := Code{a.vendor, a.result}
	if len(c.cfg.Fates) > 0 {
		if f, ok := c.cfg.Fates[code]; ok {
			return f
		}
	}
	if a.result == avp.ResultSuccess && a.vendor == 0 {
		return Settle
	}
	return DefaultFate(code)
}
