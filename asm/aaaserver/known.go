package aaaserver

import (
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// known are the AVPs that a request may carry with the M bit set.
type known struct {
	ietf  [1024]bool         // by code, of vendor 0
	other map[[2]uint32]bool // by code and vendor
}

// newKnown returns all AVPs of the dictionary, and those that RFC 6733,
// Section 9.7.1 and RFC 7155 have in an ACR beside them.
func newKnown(d *dict.Dictionary) *known {
	k := &known{other: map[[2]uint32]bool{}}
	add := func(code, vendor uint32) {
		if vendor == 0 && code < uint32(len(k.ietf)) {
			k.ietf[code] = true
		} else {
			k.other[[2]uint32{code, vendor}] = true
		}
	}
	for _, code := range []uint32{
		avp.SessionID, avp.OriginHost, avp.OriginRealm, avp.DestinationRealm, avp.DestinationHost,
		avp.AccountingRecordType, avp.AccountingRecordNumber, avp.AcctApplicationID, avp.VendorSpecificApplicationID,
		avp.UserName, avp.AccountingSubSessionID, avp.AcctSessionID, avp.AcctMultiSessionID, avp.AcctInterimInterval,
		avp.AccountingRealtimeRequired, avp.OriginStateID, avp.EventTimestamp, avp.ProxyInfo, avp.RouteRecord,
		avp.Class, avp.TerminationCause, avp.NASPort, avp.NASPortID, avp.NASPortType, avp.ServiceType, avp.FilterID,
		avp.AcctDelayTime, avp.FramedInterfaceID,
	} {
		add(code, 0)
	}
	for row := range d.Rows() {
		add(row.Code, row.Vendor)
	}
	return k
}

func (k *known) has(a avp.AVP) bool {
	if a.Vendor == 0 && a.Code < uint32(len(k.ietf)) {
		return k.ietf[a.Code]
	}
	return k.other[[2]uint32{a.Code, a.Vendor}]
}
