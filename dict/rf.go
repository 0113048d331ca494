package dict

import (
	"encoding/binary"
	"net/netip"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// Vendor3GPP is the Vendor-Id of 3GPP.
const Vendor3GPP = 10415

// AVP codes of credit control (RFC 8506) and of 3GPP charging (TS 32.299,
// Section 7.2).
const (
	subscriptionID     = 443
	subscriptionIDData = 444
	subscriptionIDType = 450
	serviceContextID   = 461

	serviceInformation     = 873
	psInformation          = 874
	chargingRuleBaseName   = 1004
	pdpAddress             = 1227
	changeCondition        = 2037
	changeTime             = 2038
	serviceDataContainer   = 2040
	startTime              = 2041
	stopTime               = 2042
	timeFirstUsage         = 2043
	timeLastUsage          = 2044
	trafficDataVolumes     = 2046
	localSequenceNumber    = 2063
	pdpAddressPrefixLength = 2606
)

// charging are the AVPs of an Rf request that are no others: those of credit
// control and, from Service-Information on, of 3GPP.
var charging = []struct {
	definition
	Vendor uint32
}{
	{definition{Code: subscriptionID, Name: "Subscription-Id", Type: Grouped, Mandatory: true}, 0},
	{definition{Code: subscriptionIDData, Name: "Subscription-Id-Data", Type: UTF8String, Mandatory: true}, 0},
	{definition{Code: subscriptionIDType, Name: "Subscription-Id-Type", Type: Enumerated, Mandatory: true}, 0},
	{definition{Code: serviceContextID, Name: "Service-Context-Id", Type: UTF8String, Mandatory: true}, 0},
	{definition{Code: 432, Name: "Rating-Group", Type: Unsigned32, Mandatory: true}, 0},
	{definition{Code: 439, Name: "Service-Identifier", Type: Unsigned32, Mandatory: true}, 0},

	{definition{Code: serviceInformation, Name: "Service-Information", Type: Grouped, Mandatory: true}, Vendor3GPP},
	{definition{Code: psInformation, Name: "PS-Information", Type: Grouped, Mandatory: true}, Vendor3GPP},
	{definition{Code: chargingRuleBaseName, Name: "Charging-Rule-Base-Name", Type: UTF8String, Mandatory: true}, Vendor3GPP},
	{definition{Code: pdpAddress, Name: "PDP-Address", Type: Address, Mandatory: true}, Vendor3GPP},
	{definition{Code: changeCondition, Name: "Change-Condition", Type: Integer32, Mandatory: true}, Vendor3GPP},
	{definition{Code: changeTime, Name: "Change-Time", Type: Time, Mandatory: true}, Vendor3GPP},
	{definition{Code: serviceDataContainer, Name: "Service-Data-Container", Type: Grouped, Mandatory: true}, Vendor3GPP},
	{definition{Code: startTime, Name: "Start-Time", Type: Time, Mandatory: true}, Vendor3GPP},
	{definition{Code: stopTime, Name: "Stop-Time", Type: Time, Mandatory: true}, Vendor3GPP},
	{definition{Code: timeFirstUsage, Name: "Time-First-Usage", Type: Time, Mandatory: true}, Vendor3GPP},
	{definition{Code: timeLastUsage, Name: "Time-Last-Usage", Type: Time, Mandatory: true}, Vendor3GPP},
	{definition{Code: trafficDataVolumes, Name: "Traffic-Data-Volumes", Type: Grouped, Mandatory: true}, Vendor3GPP},
	{definition{Code: localSequenceNumber, Name: "Local-Sequence-Number", Type: Unsigned32, Mandatory: true}, Vendor3GPP},
	{definition{Code: pdpAddressPrefixLength, Name: "PDP-Address-Prefix-Length", Type: Unsigned32, Mandatory: true}, Vendor3GPP},
	{definition{Code: 862, Name: "Node-Functionality", Type: Enumerated, Mandatory: true}, Vendor3GPP},
	{definition{Code: 847, Name: "GGSN-Address", Type: Address, Mandatory: true}, Vendor3GPP},
	{definition{Code: 2, Name: "3GPP-Charging-Id", Type: OctetString, Mandatory: true}, Vendor3GPP},
	{definition{Code: 18, Name: "3GPP-SGSN-MCC-MNC", Type: UTF8String, Mandatory: true}, Vendor3GPP},
	{definition{Code: 21, Name: "3GPP-RAT-Type", Type: OctetString, Mandatory: true}, Vendor3GPP},
	{definition{Code: 2047, Name: "Serving-Node-Type", Type: Enumerated, Mandatory: true}, Vendor3GPP},
}

// Values of Change-Condition (TS 32.299, Section 7.2.37).
const (
	normalRelease = 0
	timeLimit     = 4
)

// appendRf appends an ACR of 3GPP offline charging (TS 32.299, Section
// 6.2.2): of the volumes that the record adds, one Traffic-Data-Volumes, and a
// Service-Data-Container for each class. What 3GPP has no AVP for comes in our
// own, whose M bit is clear.
func (d *Dictionary) appendRf(b []byte, r *acct.Record, o Options, p *Profile) []byte {
	flags := func(code uint32) uint8 { return o.flags(code) }
	b = d.appendHead(b, r, &o)
	context := p.ServiceContext
	if context == "" {
		context = DefaultServiceContext
	}
	b = avp.AppendString(b, serviceContextID, 0, flags(serviceContextID), context)

	b, service := avp.Begin(b, serviceInformation, Vendor3GPP, flags(serviceInformation))
	b = appendSubscription(b, r, &o)
	b, ps := avp.Begin(b, psInformation, Vendor3GPP, flags(psInformation))
	if r.Framed.IsValid() {
		b = appendPDPAddress(b, r.Framed.Masked(), &o)
	}
	final := r.Type == acct.Stop || r.Type == acct.Event
	if r.Type != acct.Start {
		why := int32(timeLimit)
		if final {
			why = normalRelease
		}
		for i := range r.Classes {
			c := &r.Classes[i]
			if c.Increase == (acct.Usage{}) {
				continue
			}
			group := 0
			b, group = avp.Begin(b, serviceDataContainer, Vendor3GPP, flags(serviceDataContainer))
			b = avp.AppendString(b, chargingRuleBaseName, Vendor3GPP, flags(chargingRuleBaseName), c.Class)
			b = appendVolumes(b, c.Increase, &o)
			b = avp.AppendUint32(b, localSequenceNumber, Vendor3GPP, flags(localSequenceNumber), uint32(i+1))
			b = append3GPPTime(b, timeFirstUsage, r.Start, &o)
			b = append3GPPTime(b, timeLastUsage, r.End, &o)
			b = append3GPPTime(b, changeTime, r.End, &o)
			b = avp.AppendInt32(b, changeCondition, Vendor3GPP, flags(changeCondition), why)
			if c.ZeroRated {
				b = avp.AppendUint32(b, ZeroRated, d.vendor, 0, Free)
			}
			avp.End(b, group)
		}
		group := 0
		b, group = avp.Begin(b, trafficDataVolumes, Vendor3GPP, flags(trafficDataVolumes))
		b = appendVolumes(b, r.Increase, &o)
		b = avp.AppendInt32(b, changeCondition, Vendor3GPP, flags(changeCondition), why)
		b = append3GPPTime(b, changeTime, r.End, &o)
		avp.End(b, group)
	}
	b = append3GPPTime(b, startTime, r.End.Add(-r.SessionTime), &o)
	if final {
		b = append3GPPTime(b, stopTime, r.End, &o)
	}
	avp.End(b, ps)
	avp.End(b, service)
	b = d.appendQuality(b, r)
	return appendAttributes(b, r, &o, false)
}

func appendVolumes(b []byte, u acct.Usage, o *Options) []byte {
	b = avp.AppendUint64(b, avp.AccountingInputOctets, 0, o.flags(avp.AccountingInputOctets), u.InputOctets)
	return avp.AppendUint64(b, avp.AccountingOutputOctets, 0, o.flags(avp.AccountingOutputOctets), u.OutputOctets)
}

// append3GPPTime appends a time in whole seconds, none for one that does not
// fit.
func append3GPPTime(b []byte, code uint32, t time.Time, o *Options) []byte {
	if t.IsZero() || t.Before(avp.MinTime) || t.After(avp.MaxTime) {
		return b
	}
	return avp.AppendTime(b, code, Vendor3GPP, o.flags(code), t)
}

// appendSubscription appends who is charged: a number as E.164, else a name.
func appendSubscription(b []byte, r *acct.Record, o *Options) []byte {
	const e164, nai, private = 0, 3, 4
	who, kind := r.User, uint32(nai)
	if who == "" {
		for _, a := range r.Attributes {
			if a.Vendor == 0 && a.Code == avp.ChargeableUserIdentity {
				who, kind = string(a.Data), private
			}
		}
	}
	if who == "" {
		return b
	}
	digits := true
	for _, c := range who {
		digits = digits && '0' <= c && c <= '9'
	}
	if digits && len(who) <= 15 {
		kind = e164
	}
	b, group := avp.Begin(b, subscriptionID, 0, o.flags(subscriptionID))
	b = avp.AppendUint32(b, subscriptionIDType, 0, o.flags(subscriptionIDType), kind)
	b = avp.AppendString(b, subscriptionIDData, 0, o.flags(subscriptionIDData), who)
	avp.End(b, group)
	return b
}

func appendPDPAddress(b []byte, p netip.Prefix, o *Options) []byte {
	// RFC 6733, Section 4.3.1: the address family, then the address.
	data := make([]byte, 2, 18)
	family := uint16(1)
	if p.Addr().Is6() {
		family = 2
	}
	binary.BigEndian.PutUint16(data, family)
	data = append(data, p.Addr().AsSlice()...)
	b = avp.Append(b, pdpAddress, Vendor3GPP, o.flags(pdpAddress), data)
	if p.IsSingleIP() {
		return b
	}
	return avp.AppendUint32(b, pdpAddressPrefixLength, Vendor3GPP, o.flags(pdpAddressPrefixLength), uint32(p.Bits()))
}
