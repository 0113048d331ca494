package acct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// recordVersion is the first octet of an encoded Record. Version 1 ended at
// Parts, version 2 at Corrects; they are still read.
const recordVersion = 7

// ErrCorrupt says that an encoded value of this package can't be read.
var ErrCorrupt = errors.New("corrupt encoding")

// AppendBinary appends the record's frozen content, everything but Shares.
// Equal contents have equal encodings.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, recordVersion, byte(r.Type))
	b = appendString(b, r.SessionID)
	b = binary.AppendUvarint(b, uint64(r.Number))
	b = appendString(b, r.MultiSessionID)
	b = appendString(b, r.User)
	b = appendString(b, r.Realm)
	framed, err := r.Framed.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("acct: encode record %s/%d: %w", r.SessionID, r.Number, err)
	}
	b = appendString(b, string(framed))
	b = appendTime(b, r.Start)
	b = appendTime(b, r.End)
	b = appendTime(b, r.Event)
	b = binary.AppendVarint(b, r.SessionTime.Milliseconds())
	b = appendUsage(b, r.Usage)
	b = binary.AppendUvarint(b, uint64(len(r.Classes)))
	for _, c := range r.Classes {
		b = appendString(b, c.Class)
		b = appendUsage(b, c.Usage)
	}
	var estimated byte
	if r.Estimated {
		estimated = 1
	}
	b = append(b, estimated)
	b = appendString(b, string(r.Flow))
	b = binary.AppendUvarint(b, uint64(r.Part))
	b = binary.AppendUvarint(b, uint64(r.Parts))
	b = append(b, byte(r.Layer))
	b = binary.AppendUvarint(b, uint64(len(r.Attributes)))
	for _, a := range r.Attributes {
		b = binary.AppendUvarint(b, uint64(a.Code))
		b = binary.AppendUvarint(b, uint64(a.Vendor))
		b = appendString(b, string(a.Data))
	}
	b = appendString(b, string(r.Received))
	for _, c := range r.Classes {
		var free byte
		if c.ZeroRated {
			free = 1
		}
		b = append(b, free)
	}
	b = r.appendIncrease(b)
	b = binary.AppendUvarint(b, uint64(r.Interim))
	if r.Corrects == nil {
		return append(b, 0), nil
	}
	b = append(b, 1)
	b = appendString(b, r.Corrects.SessionID)
	b = binary.AppendUvarint(b, uint64(r.Corrects.Number))
	var credit byte
	if r.Corrects.Credit {
		credit = 1
	}
	b = append(b, credit)
	b = appendString(b, r.Corrects.Reason)
	return b, nil
}

// How the increases of a record are encoded.
const (
	increaseNone  = 0 // they are all zero
	increaseAll   = 1 // they are all of the usage
	increaseGiven = 2
)

func (r *Record) appendIncrease(b []byte) []byte {
	none, all := r.Increase == Usage{}, r.Increase == r.Usage
	for i := range r.Classes {
		c := &r.Classes[i]
		none, all = none && c.Increase == Usage{}, all && c.Increase == c.Usage
	}
	switch {
	case none:
		return append(b, increaseNone)
	case all:
		return append(b, increaseAll)
	}
	b = appendUsage(append(b, increaseGiven), r.Increase)
	for i := range r.Classes {
		b = appendUsage(b, r.Classes[i].Increase)
	}
	return b
}

func (r *Record) parseIncrease(d *decoder) {
	switch how := d.octet(); how {
	case increaseNone:
	case increaseAll:
		r.Increase = r.Usage
		for i := range r.Classes {
			r.Classes[i].Increase = r.Classes[i].Usage
		}
	case increaseGiven:
		r.Increase = d.usage()
		for i := range r.Classes {
			r.Classes[i].Increase = d.usage()
		}
	default:
		d.fail()
	}
}

// RealmOf returns the Realm of an encoded Record without decoding the rest.
// It is part of b. Errors match ErrCorrupt.
func RealmOf(b []byte) ([]byte, error) {
	d := decoder{b: b}
	if v := d.octet(); v == 0 || v > recordVersion {
		d.fail()
	}
	d.octet() // Type
	d.bytes() // SessionID
	d.uvarint()
	d.bytes() // MultiSessionID
	d.bytes() // User
	realm := d.bytes()
	if d.err != nil {
		return nil, fmt.Errorf("acct: realm of a record: %w", d.err)
	}
	return realm, nil
}

// UnmarshalBinary reads what AppendBinary wrote. It keeps Shares. Errors
// match ErrCorrupt.
func (r *Record) UnmarshalBinary(b []byte) error {
	d := decoder{b: b}
	v := d.octet()
	if (v == 0 || v > recordVersion) && d.err == nil {
		return fmt.Errorf("acct: record of version %d: %w", v, ErrCorrupt)
	}
	out := Record{Shares: r.Shares}
	out.Type = RecordType(d.octet())
	out.SessionID = d.string()
	out.Number = uint32(d.uvarint())
	out.MultiSessionID = d.string()
	out.User = d.string()
	out.Realm = d.string()
	if framed := d.string(); framed != "" && d.err == nil {
		if err := out.Framed.UnmarshalBinary([]byte(framed)); err != nil {
			d.err = ErrCorrupt
		}
	}
	out.Start, out.End, out.Event = d.time(), d.time(), d.time()
	out.SessionTime = time.Duration(d.varint()) * time.Millisecond
	out.Usage = d.usage()
	// A class takes at least five octets, so a length beyond what is left
	// can't make us allocate.
	if n := d.uvarint(); n > uint64(len(d.b)) {
		d.err = ErrCorrupt
	} else if n > 0 {
		out.Classes = make([]ClassUsage, n)
		for i := range out.Classes {
			out.Classes[i] = ClassUsage{Class: d.string(), Usage: d.usage()}
		}
	}
	out.Estimated = d.octet() == 1
	if flow := d.string(); flow != "" {
		out.Flow = []byte(flow)
	}
	out.Part, out.Parts = uint16(d.uvarint()), uint16(d.uvarint())
	if v >= 2 {
		out.Layer = Layer(d.octet())
		if n := d.uvarint(); n > uint64(len(d.b)) {
			d.err = ErrCorrupt
		} else if n > 0 {
			out.Attributes = make([]Attribute, n)
			for i := range out.Attributes {
				out.Attributes[i] = Attribute{uint32(d.uvarint()), uint32(d.uvarint()), []byte(d.string())}
			}
		}
		if v >= 3 {
			if received := d.string(); received != "" {
				out.Received = []byte(received)
			}
		}
		if v >= 5 {
			for i := range out.Classes {
				out.Classes[i].ZeroRated = d.octet() == 1
			}
		}
		if v >= 6 {
			out.parseIncrease(&d)
		}
		if v >= 7 {
			out.Interim = uint32(d.uvarint())
		}
		if d.octet() == 1 {
			out.Corrects = &Correction{SessionID: d.string(), Number: uint32(d.uvarint()), Credit: d.octet() == 1, Reason: d.string()}
		}
	}
	if d.err == nil && len(d.b) != 0 {
		d.err = ErrCorrupt
	}
	if d.err != nil {
		return fmt.Errorf("acct: decode record: %w", d.err)
	}
	*r = out
	return nil
}

// AppendShares appends an encoding of shares, which ParseShares reads.
func AppendShares(b []byte, shares []Share) []byte {
	b = binary.AppendUvarint(b, uint64(len(shares)))
	for _, s := range shares {
		b = appendString(b, s.Exporter)
		b = binary.AppendUvarint(b, uint64(s.Domain))
		b = binary.AppendVarint(b, s.Interval)
		b = binary.AppendUvarint(b, s.Records)
		b = binary.AppendUvarint(b, s.Octets)
		b = binary.AppendUvarint(b, s.Packets)
	}
	return b
}

// ParseShares reads what AppendShares wrote. No octets are no shares. Errors
// match ErrCorrupt.
func ParseShares(b []byte) ([]Share, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d := decoder{b: b}
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		return nil, fmt.Errorf("acct: decode shares: %w", ErrCorrupt)
	}
	shares := make([]Share, n)
	for i := range shares {
		shares[i] = Share{
			LedgerKey{d.string(), uint32(d.uvarint()), d.varint()},
			Count{d.uvarint(), d.uvarint(), d.uvarint()},
		}
	}
	if d.err != nil || len(d.b) != 0 {
		return nil, fmt.Errorf("acct: decode shares: %w", ErrCorrupt)
	}
	return shares, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendTime appends t in milliseconds, the zero time as zero.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, t.UnixMilli())
}

func appendUsage(b []byte, u Usage) []byte {
	b = binary.AppendUvarint(b, u.InputOctets)
	b = binary.AppendUvarint(b, u.OutputOctets)
	b = binary.AppendUvarint(b, u.InputPackets)
	return binary.AppendUvarint(b, u.OutputPackets)
}

// A decoder reads values off the front of b. After the first failure err is
// set and every value is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() { d.b, d.err = nil, ErrCorrupt }

func (d *decoder) octet() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

// bytes returns a string in place.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) time() time.Time {
	ms := d.varint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (d *decoder) usage() Usage {
	return Usage{d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()}
}
