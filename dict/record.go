package dict

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// Options are what an accounting request says beside its record.
type Options struct {
	OriginHost       string // required
	OriginRealm      string // required
	DestinationRealm string // of records without a Realm
	DestinationHost  string // "" for none
	Application      uint32 // Acct-Application-Id; 0 means avp.ApplicationAccounting
	OriginStateID    uint32 // 0 for none

	// Optional are codes of standard AVPs that are sent with the M bit clear
	// though their RFC sets it, for servers that don't know them. The M bit of
	// the vendor's AVPs is always clear.
	Optional []uint32
}

// flags returns the AVP flags of a standard AVP whose RFC sets the M bit.
func (o *Options) flags(code uint32) uint8 {
	for _, c := range o.Optional {
		if c == code {
			return 0
		}
	}
	return avp.FlagMandatory
}

// AppendRecord appends the AVPs of the Accounting-Request that carries r:
// Session-Id first, then in the order of RFC 6733, Section 9.7.1. A header is
// the caller's to write. Equal records and options give equal octets, and
// nothing is allocated but a larger b.
//
// The M bit is set as RFC 6733 and RFC 7155 have it, except for
// Framed-IP-Netmask, which a server of base accounting may not know and which
// Options can't set. Addresses of r.Framed beyond the prefix are not sent. r.Flow
// is appended as it is.
func (d *Dictionary) AppendRecord(b []byte, r *acct.Record, o Options) []byte {
	return d.appendRecord(b, r, o, false)
}

// appendRecord is AppendRecord, for access servers with the M bits that RFC
// 7155 sets for the attributes of a user's binding.
func (d *Dictionary) appendRecord(b []byte, r *acct.Record, o Options, access bool) []byte {
	b = d.appendHead(b, r, &o)
	b = appendFramed(b, r.Framed, &o)
	seconds := r.SessionTime / time.Second
	if r.SessionTime != 0 {
		b = avp.AppendUint32(b, avp.AcctSessionTime, 0, o.flags(avp.AcctSessionTime), uint32(max(0, min(seconds, math.MaxUint32))))
	}
	b = avp.AppendUint64(b, avp.AccountingInputOctets, 0, o.flags(avp.AccountingInputOctets), r.Usage.InputOctets)
	b = avp.AppendUint64(b, avp.AccountingOutputOctets, 0, o.flags(avp.AccountingOutputOctets), r.Usage.OutputOctets)
	b = avp.AppendUint64(b, avp.AccountingInputPackets, 0, o.flags(avp.AccountingInputPackets), r.Usage.InputPackets)
	b = avp.AppendUint64(b, avp.AccountingOutputPackets, 0, o.flags(avp.AccountingOutputPackets), r.Usage.OutputPackets)
	b = appendAttributes(b, r, &o, access)

	// The vendor's own: what the standard AVPs can't say.
	b = d.appendTime(b, IntervalStart, r.Start)
	b = d.appendTime(b, IntervalEnd, r.End)
	if !fits(r.Event) || r.Event.Nanosecond() != 0 {
		b = d.appendTime(b, EventTime, r.Event)
	}
	if seconds*time.Second != r.SessionTime || seconds < 0 || seconds > math.MaxUint32 {
		b = avp.AppendUint64(b, SessionDuration, d.vendor, 0, uint64(r.SessionTime.Milliseconds()))
	}
	b = d.appendQuality(b, r)
	for i := range r.Classes {
		b = d.appendClass(b, &r.Classes[i])
	}
	return append(b, r.Flow...)
}

// appendHead appends what every request begins with.
func (d *Dictionary) appendHead(b []byte, r *acct.Record, o *Options) []byte {
	realm := r.Realm
	if realm == "" {
		realm = o.DestinationRealm
	}
	application := o.Application
	if application == 0 {
		application = avp.ApplicationAccounting
	}
	b = avp.AppendString(b, avp.SessionID, 0, o.flags(avp.SessionID), r.SessionID)
	b = avp.AppendString(b, avp.OriginHost, 0, o.flags(avp.OriginHost), o.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, o.flags(avp.OriginRealm), o.OriginRealm)
	b = avp.AppendString(b, avp.DestinationRealm, 0, o.flags(avp.DestinationRealm), realm)
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, o.flags(avp.AccountingRecordType), uint32(r.Type))
	b = avp.AppendUint32(b, avp.AccountingRecordNumber, 0, o.flags(avp.AccountingRecordNumber), r.Number)
	b = avp.AppendUint32(b, avp.AcctApplicationID, 0, o.flags(avp.AcctApplicationID), application)
	if r.User != "" {
		b = avp.AppendString(b, avp.UserName, 0, o.flags(avp.UserName), r.User)
	}
	if o.DestinationHost != "" {
		b = avp.AppendString(b, avp.DestinationHost, 0, o.flags(avp.DestinationHost), o.DestinationHost)
	}
	if r.MultiSessionID != "" {
		b = avp.AppendString(b, avp.AcctMultiSessionID, 0, o.flags(avp.AcctMultiSessionID), r.MultiSessionID)
	}
	if o.OriginStateID != 0 {
		b = avp.AppendUint32(b, avp.OriginStateID, 0, o.flags(avp.OriginStateID), o.OriginStateID)
	}
	if fits(r.Event) {
		b = avp.AppendTime(b, avp.EventTimestamp, 0, o.flags(avp.EventTimestamp), r.Event)
	}
	return b
}

// fits reports whether a Time AVP can hold t.
func fits(t time.Time) bool { return !t.Before(avp.MinTime) && !t.After(avp.MaxTime) }

// appendQuality appends what the volumes of r are worth, which part of it
// they are, and which record they amend, in the vendor's AVPs.
func (d *Dictionary) appendQuality(b []byte, r *acct.Record) []byte {
	if r.Layer != acct.LayerUnknown {
		b = avp.AppendUint32(b, OctetLayer, d.vendor, 0, uint32(r.Layer))
	}
	if r.Estimated {
		b = avp.AppendUint32(b, UsageEstimated, d.vendor, 0, Estimated)
	}
	if r.Parts != 0 || r.Part != 0 {
		b = avp.AppendUint32(b, RecordPart, d.vendor, 0, uint32(r.Part))
		b = avp.AppendUint32(b, RecordParts, d.vendor, 0, uint32(r.Parts))
	}
	if r.Corrects != nil {
		b = d.appendCorrection(b, r.Corrects)
	}
	return b
}

// appendAttributes appends what the user's binding brought along. Those that
// the request says itself are left out.
func appendAttributes(b []byte, r *acct.Record, o *Options, access bool) []byte {
	for i := range r.Attributes {
		a := &r.Attributes[i]
		if a.Vendor == 0 && !attribute(a.Code) {
			continue
		}
		var flags uint8
		if access && a.Vendor == 0 && mandatory[a.Code] {
			flags = o.flags(a.Code)
		}
		b = avp.Append(b, a.Code, a.Vendor, flags, a.Data)
	}
	return b
}

// attribute reports whether an AVP may come from a user's binding: it is not
// one that a request has but once and says itself, nor RADIUS's own business
// (passwords, state, authenticators).
func attribute(code uint32) bool {
	switch code {
	case avp.UserName, avp.AcctMultiSessionID, avp.EventTimestamp, avp.AcctSessionID, avp.AcctSessionTime, avp.AcctInterimInterval:
		return false
	case 2, 3, 18, 24, 33, 40, 41, 42, 43, 45, 47, 48, 49, 51, 52, 53, 60, 69, 79, 80:
		return false
	}
	return code > 0 && code < 256
}

// mandatory are the attributes whose M bit RFC 7155 sets.
var mandatory = func() map[uint32]bool {
	m := map[uint32]bool{}
	for _, list := range [][]definition{standard, access} {
		for _, s := range list {
			m[s.Code] = s.Mandatory
		}
	}
	return m
}()

// appendTime appends a time in milliseconds, none for the zero time.
func (d *Dictionary) appendTime(b []byte, code uint32, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return avp.AppendUint64(b, code, d.vendor, 0, uint64(t.UnixMilli()))
}

// appendClass appends a Class-Usage AVP. Counters of zero are left out.
func (d *Dictionary) appendClass(b []byte, c *acct.ClassUsage) []byte {
	b, group := avp.Begin(b, ClassUsage, d.vendor, 0)
	b = avp.AppendString(b, ClassName, d.vendor, 0, c.Class)
	if c.InputOctets != 0 {
		b = avp.AppendUint64(b, avp.AccountingInputOctets, 0, 0, c.InputOctets)
	}
	if c.OutputOctets != 0 {
		b = avp.AppendUint64(b, avp.AccountingOutputOctets, 0, 0, c.OutputOctets)
	}
	if c.InputPackets != 0 {
		b = avp.AppendUint64(b, avp.AccountingInputPackets, 0, 0, c.InputPackets)
	}
	if c.OutputPackets != 0 {
		b = avp.AppendUint64(b, avp.AccountingOutputPackets, 0, 0, c.OutputPackets)
	}
	if c.ZeroRated {
		b = avp.AppendUint32(b, ZeroRated, d.vendor, 0, Free)
	}
	avp.End(b, group)
	return b
}

// appendFramed appends what the user held: a Framed-IP-Address, with a
// Framed-IP-Netmask for a network, or a Framed-IPv6-Prefix.
func appendFramed(b []byte, p netip.Prefix, o *Options) []byte {
	if !p.IsValid() {
		return b
	}
	p = p.Masked()
	if p.Addr().Is4() {
		a := p.Addr().As4()
		b = avp.Append(b, avp.FramedIPAddress, 0, o.flags(avp.FramedIPAddress), a[:])
		if p.Bits() < 32 {
			b = avp.AppendUint32(b, avp.FramedIPNetmask, 0, 0, math.MaxUint32<<(32-p.Bits())&math.MaxUint32)
		}
		return b
	}
	// RFC 3162, Section 2.3: a reserved octet, the length, the prefix.
	var data [18]byte
	data[1] = byte(p.Bits())
	a := p.Addr().As16()
	copy(data[2:], a[:])
	return avp.Append(b, avp.FramedIPv6Prefix, 0, o.flags(avp.FramedIPv6Prefix), data[:2+(p.Bits()+7)/8])
}

// Why ParseRecord refuses a request.
var (
	ErrMissing    = errors.New("required AVP is missing")
	ErrOccurrence = errors.New("AVP occurs too many times")
)

// A RecordError says which AVP of a request is at fault, and with which
// Result-Code to answer it.
type RecordError struct {
	Result uint32  // such as avp.ResultMissingAVP
	AVP    avp.AVP // the offending AVP; of a missing one an example without data
	Err    error   // ErrMissing, ErrOccurrence, or one of package avp
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("dict: parse record: AVP %d: %v", e.AVP.Code, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// AppendFailedAVP appends the Failed-AVP that explains e (RFC 6733, Section
// 7.5). An AVP that is missing or has an invalid length is given with data of
// zeros, as many as its type takes at least.
func (e *RecordError) AppendFailedAVP(b []byte) []byte {
	b, group := avp.Begin(b, avp.FailedAVP, 0, avp.FlagMandatory)
	data := e.AVP.Data
	if errors.Is(e.Err, ErrMissing) || errors.Is(e.Err, avp.ErrLength) || errors.Is(e.Err, avp.ErrTruncated) {
		var zeros [8]byte
		data = zeros[:leastData(e.AVP.Code, e.AVP.Vendor)]
	}
	b = avp.Append(b, e.AVP.Code, e.AVP.Vendor, e.AVP.Flags, data)
	avp.End(b, group)
	return b
}

// leastData returns the least octets of data that an AVP of a record has.
func leastData(code, vendor uint32) int {
	for _, s := range slices.Concat(base, standard) {
		if s.Code == code && vendor == 0 {
			return s.Type.least()
		}
	}
	for _, s := range structural {
		if s.Code == code && vendor != 0 {
			return s.Type.least()
		}
	}
	return 0
}

// once are the AVPs that a request has at most once (RFC 6733, Section 9.7.1),
// each a bit of what ParseRecord has seen. The first three are required.
var once = [...]uint32{
	avp.SessionID, avp.AccountingRecordType, avp.AccountingRecordNumber,
	avp.OriginHost, avp.OriginRealm, avp.DestinationRealm, avp.AcctApplicationID, avp.UserName,
	avp.AcctMultiSessionID, avp.EventTimestamp,
}

// ParseRecord returns the record that the AVPs of an Accounting-Request carry:
// the one that AppendRecord was given, with the Destination-Realm for Realm, or
// as much as can be told of a foreign node's. AVPs that it does not know are
// passed over, whatever their M bit says, which is the caller's to judge.
// Strings are copied and Flow too, so the record does not keep avps.
// Errors are of type *RecordError.
func (d *Dictionary) ParseRecord(avps []byte) (acct.Record, error) {
	p := recordParser{d: d}
	seen := 0
	for a, err := range avp.Scan(avps) {
		if err == nil && a.Vendor == 0 {
			for i, code := range once {
				if a.Code != code {
					continue
				}
				if seen&(1<<i) != 0 {
					return acct.Record{}, &RecordError{avp.ResultAVPOccursTooManyTimes, a, ErrOccurrence}
				}
				seen |= 1 << i
			}
			err = p.standard(a)
		} else if err == nil && a.Vendor == d.vendor {
			err = p.own(a)
		}
		if err != nil {
			return acct.Record{}, &RecordError{avp.ResultCode(err), a, err}
		}
	}
	for i, code := range once[:3] {
		if seen&(1<<i) == 0 {
			return acct.Record{}, &RecordError{avp.ResultMissingAVP, avp.AVP{Code: code, Flags: avp.FlagMandatory}, ErrMissing}
		}
	}
	r := &p.record
	if p.hasNetmask && r.Framed.IsValid() && r.Framed.Addr().Is4() {
		r.Framed = netip.PrefixFrom(r.Framed.Addr(), p.netmask)
	}
	if p.hasDuration {
		r.SessionTime = p.duration
	}
	if !p.event.IsZero() {
		r.Event = p.event
	}
	return p.record, nil
}

// A recordParser collects a record from its AVPs.
type recordParser struct {
	d           *Dictionary
	record      acct.Record
	event       time.Time // Event-Time
	duration    time.Duration
	hasDuration bool
	netmask     int // length
	hasNetmask  bool
}

// standard reads an AVP of the IETF.
func (p *recordParser) standard(a avp.AVP) (err error) {
	r := &p.record
	switch a.Code {
	case avp.SessionID:
		if r.SessionID = string(a.Data); r.SessionID == "" {
			return &avp.DecodeError{What: "Session-Id", Err: avp.ErrValue}
		}
	case avp.AccountingRecordType:
		n, err := a.Uint32()
		if err != nil {
			return err
		}
		if n < avp.EventRecord || n > avp.StopRecord {
			return &avp.DecodeError{What: "Accounting-Record-Type", Err: avp.ErrValue}
		}
		r.Type = acct.RecordType(n)
	case avp.AccountingRecordNumber:
		r.Number, err = a.Uint32()
	case avp.DestinationRealm:
		r.Realm = string(a.Data)
	case avp.UserName:
		r.User = string(a.Data)
	case avp.AcctMultiSessionID:
		r.MultiSessionID = string(a.Data)
	case avp.EventTimestamp:
		r.Event, err = a.Time()
	case avp.AcctSessionTime:
		var n uint32
		n, err = a.Uint32()
		r.SessionTime = time.Duration(n) * time.Second
	case avp.FramedIPAddress:
		if len(a.Data) != 4 {
			return &avp.DecodeError{What: "Framed-IP-Address", Err: avp.ErrLength}
		}
		if r.Framed.IsValid() {
			p.attribute(a)
		} else {
			r.Framed = netip.PrefixFrom(netip.AddrFrom4([4]byte(a.Data)), 32)
		}
	case avp.FramedIPNetmask:
		var n uint32
		if n, err = a.Uint32(); err != nil {
			return err
		}
		p.netmask, p.hasNetmask = maskLength(n)
	case avp.FramedIPv6Prefix:
		prefix, err := parseIPv6Prefix(a.Data)
		if err != nil {
			return err
		}
		if r.Framed.IsValid() {
			p.attribute(a)
		} else {
			r.Framed = prefix
		}
	case avp.Classifier:
		r.Flow = a.Append(r.Flow)
	default:
		if attribute(a.Code) {
			p.attribute(a)
			return nil
		}
		return parseUsage(&r.Usage, a)
	}
	return err
}

// attribute keeps an AVP of a user's binding.
func (p *recordParser) attribute(a avp.AVP) {
	p.record.Attributes = append(p.record.Attributes, acct.Attribute{Code: a.Code, Vendor: a.Vendor, Data: slices.Clone(a.Data)})
}

// parseUsage reads a into u if it is one of the four counters.
func parseUsage(u *acct.Usage, a avp.AVP) (err error) {
	if a.Vendor != 0 {
		return nil
	}
	switch a.Code {
	case avp.AccountingInputOctets:
		u.InputOctets, err = a.Uint64()
	case avp.AccountingOutputOctets:
		u.OutputOctets, err = a.Uint64()
	case avp.AccountingInputPackets:
		u.InputPackets, err = a.Uint64()
	case avp.AccountingOutputPackets:
		u.OutputPackets, err = a.Uint64()
	}
	return err
}

// HasUsage reports whether a request has any of the four counters of usage.
func HasUsage(avps []byte) bool {
	for a := range avp.Scan(avps) {
		switch {
		case a.Vendor != 0:
		case a.Code == avp.AccountingInputOctets, a.Code == avp.AccountingOutputOctets,
			a.Code == avp.AccountingInputPackets, a.Code == avp.AccountingOutputPackets:
			return true
		}
	}
	return false
}

// own reads an AVP of the dictionary's vendor.
func (p *recordParser) own(a avp.AVP) (err error) {
	r := &p.record
	switch a.Code {
	case IntervalStart:
		r.Start, err = milliseconds(a)
	case IntervalEnd:
		r.End, err = milliseconds(a)
	case EventTime:
		p.event, err = milliseconds(a)
	case SessionDuration:
		var n uint64
		n, err = a.Uint64()
		p.duration, p.hasDuration = time.Duration(n)*time.Millisecond, true
	case UsageEstimated:
		var n uint32
		n, err = a.Uint32()
		r.Estimated = n == Estimated
	case RoamingAgreement:
		p.attribute(a)
	case OctetLayer:
		var n uint32
		n, err = a.Uint32()
		r.Layer = acct.Layer(min(n, math.MaxUint8))
	case RecordPart:
		r.Part, err = uint16Of(a)
	case RecordParts:
		r.Parts, err = uint16Of(a)
	case ClassUsage:
		c, err := p.d.parseClass(a)
		if err != nil {
			return err
		}
		r.Classes = append(r.Classes, c)
	case Correction:
		r.Corrects, err = p.d.parseCorrection(a)
	case Flow, FlowFragment, ExporterName:
		r.Flow = a.Append(r.Flow)
	}
	return err
}

func (d *Dictionary) parseClass(group avp.AVP) (c acct.ClassUsage, err error) {
	for a, err := range avp.Scan(group.Data) {
		switch {
		case err != nil:
			return c, err
		case a.Is(ClassName, d.vendor):
			c.Class = string(a.Data)
		case a.Is(ZeroRated, d.vendor):
			n, err := a.Uint32()
			if err != nil {
				return c, err
			}
			c.ZeroRated = n == Free
		default:
			if err := parseUsage(&c.Usage, a); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

func milliseconds(a avp.AVP) (time.Time, error) {
	n, err := a.Uint64()
	return time.UnixMilli(int64(n)).UTC(), err
}

func uint16Of(a avp.AVP) (uint16, error) {
	n, err := a.Uint32()
	if err == nil && n > math.MaxUint16 {
		err = &avp.DecodeError{What: "Record-Part", Err: avp.ErrValue}
	}
	return uint16(n), err
}

// maskLength returns the prefix length of a netmask, false if its ones have
// gaps.
func maskLength(mask uint32) (int, bool) {
	for n := range 33 {
		if mask == uint32(math.MaxUint32<<(32-n)&math.MaxUint32) {
			return n, true
		}
	}
	return 0, false
}

func parseIPv6Prefix(data []byte) (netip.Prefix, error) {
	if len(data) < 2 || len(data) > 18 {
		return netip.Prefix{}, &avp.DecodeError{What: "Framed-IPv6-Prefix", Err: avp.ErrLength}
	}
	bits := int(data[1])
	if bits > 128 || len(data)-2 < (bits+7)/8 {
		return netip.Prefix{}, &avp.DecodeError{What: "Framed-IPv6-Prefix", Err: avp.ErrValue}
	}
	var a [16]byte
	copy(a[:], data[2:])
	return netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked(), nil
}
