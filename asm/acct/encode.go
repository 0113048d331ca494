package acct

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"tollbridge/internal/octets"
)

// recordVersion is the first octet of an encoded Record. Version 1 ended at
// Parts, version 2 at Corrects; they are still read.
const recordVersion = 8

// ErrCorrupt says that an encoded value of this package can't be read.
var ErrCorrupt = octets.ErrCorrupt

// AppendBinary appends the record's frozen content, everything but Shares.
// Equal contents have equal encodings.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, recordVersion, byte(r.Type))
	b = octets.AppendString(b, r.SessionID)
	b = binary.AppendUvarint(b, uint64(r.Number))
	b = octets.AppendString(b, r.MultiSessionID)
	b = octets.AppendString(b, r.User)
	b = octets.AppendString(b, r.Realm)
	framed, err := r.Framed.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("acct: encode record %s/%d: %w", r.SessionID, r.Number, err)
	}
	b = octets.AppendBytes(b, framed)
	b = appendTime(b, r.Start)
	b = appendTime(b, r.End)
	b = appendTime(b, r.Event)
	b = binary.AppendVarint(b, r.SessionTime.Milliseconds())
	b = appendUsage(b, r.Usage)
	b = binary.AppendUvarint(b, uint64(len(r.Classes)))
	for _, c := range r.Classes {
		b = octets.AppendString(b, c.Class)
		b = appendUsage(b, c.Usage)
	}
	var estimated byte
	if r.Estimated {
		estimated = 1
	}
	b = append(b, estimated)
	b = octets.AppendBytes(b, r.Flow)
	b = binary.AppendUvarint(b, uint64(r.Part))
	b = binary.AppendUvarint(b, uint64(r.Parts))
	b = append(b, byte(r.Layer))
	b = binary.AppendUvarint(b, uint64(len(r.Attributes)))
	for _, a := range r.Attributes {
		b = binary.AppendUvarint(b, uint64(a.Code))
		b = binary.AppendUvarint(b, uint64(a.Vendor))
		b = octets.AppendBytes(b, a.Data)
	}
	b = octets.AppendBytes(b, r.Received)
	for _, c := range r.Classes {
		var free byte
		if c.ZeroRated {
			free = 1
		}
		b = append(b, free)
	}
	b = r.appendIncrease(b)
	b = binary.AppendUvarint(b, uint64(r.Interim))
	b = octets.AppendString(b, r.Source)
	b = octets.AppendString(b, r.NAS)
	if r.Corrects == nil {
		return append(b, 0), nil
	}
	b = append(b, 1)
	b = octets.AppendString(b, r.Corrects.SessionID)
	b = binary.AppendUvarint(b, uint64(r.Corrects.Number))
	var credit byte
	if r.Corrects.Credit {
		credit = 1
	}
	b = append(b, credit)
	b = octets.AppendString(b, r.Corrects.Reason)
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
	switch how := d.Octet(); how {
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
		d.Fail()
	}
}

// RealmOf returns the Realm of an encoded Record without decoding the rest.
// It is part of b. Errors match ErrCorrupt.
func RealmOf(b []byte) ([]byte, error) {
	d := newDecoder(b)
	if v := d.Octet(); v == 0 || v > recordVersion {
		d.Fail()
	}
	d.Octet() // Type
	d.Bytes() // SessionID
	d.Uvarint()
	d.Bytes() // MultiSessionID
	d.Bytes() // User
	realm := d.Bytes()
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("acct: realm of a record: %w", err)
	}
	return realm, nil
}

// UnmarshalBinary reads what AppendBinary wrote. It keeps Shares. Errors
// match ErrCorrupt.
func (r *Record) UnmarshalBinary(b []byte) error {
	d := newDecoder(b)
	v := d.Octet()
	if (v == 0 || v > recordVersion) && d.Err() == nil {
		return fmt.Errorf("acct: record of version %d: %w", v, ErrCorrupt)
	}
	out := Record{Shares: r.Shares}
	out.Type = RecordType(d.Octet())
	out.SessionID = d.Text()
	out.Number = uint32(d.Uvarint())
	out.MultiSessionID = d.Text()
	out.User = d.Text()
	out.Realm = d.Text()
	if framed := d.Bytes(); len(framed) > 0 {
		if err := out.Framed.UnmarshalBinary(framed); err != nil {
			d.Fail()
		}
	}
	out.Start, out.End, out.Event = d.time(), d.time(), d.time()
	out.SessionTime = time.Duration(d.Varint()) * time.Millisecond
	out.Usage = d.usage()
	if n := d.Count(); n > 0 {
		out.Classes = make([]ClassUsage, n)
		for i := range out.Classes {
			out.Classes[i] = ClassUsage{Class: d.Text(), Usage: d.usage()}
		}
	}
	out.Estimated = d.Bool()
	if flow := d.Bytes(); len(flow) > 0 {
		out.Flow = bytes.Clone(flow)
	}
	out.Part, out.Parts = uint16(d.Uvarint()), uint16(d.Uvarint())
	if v >= 2 {
		out.Layer = Layer(d.Octet())
		if n := d.Count(); n > 0 {
			out.Attributes = make([]Attribute, n)
			for i := range out.Attributes {
				out.Attributes[i] = Attribute{uint32(d.Uvarint()), uint32(d.Uvarint()), bytes.Clone(d.Bytes())}
			}
		}
		if v >= 3 {
			if received := d.Bytes(); len(received) > 0 {
				out.Received = bytes.Clone(received)
			}
		}
		if v >= 5 {
			for i := range out.Classes {
				out.Classes[i].ZeroRated = d.Bool()
			}
		}
		if v >= 6 {
			out.parseIncrease(&d)
		}
		if v >= 7 {
			out.Interim = uint32(d.Uvarint())
		}
		if v >= 8 {
			out.Source, out.NAS = d.Text(), d.Text()
		}
		if d.Bool() {
			out.Corrects = &Correction{SessionID: d.Text(), Number: uint32(d.Uvarint()), Credit: d.Bool(), Reason: d.Text()}
		}
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("acct: decode record: %w", err)
	}
	*r = out
	return nil
}

// AppendShares appends an encoding of shares, which ParseShares reads.
func AppendShares(b []byte, shares []Share) []byte {
	b = binary.AppendUvarint(b, uint64(len(shares)))
	for _, s := range shares {
		b = octets.AppendString(b, s.Exporter)
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
	d := newDecoder(b)
	shares := make([]Share, d.Count())
	for i := range shares {
		shares[i] = Share{
			LedgerKey{d.Text(), uint32(d.Uvarint()), d.Varint()},
			Count{d.Uvarint(), d.Uvarint(), d.Uvarint()},
		}
	}
	if err := d.Close(); err != nil {
		return nil, fmt.Errorf("acct: decode shares: %w", err)
	}
	return shares, nil
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

// A decoder is an octets.Reader that knows values of accounting records.
type decoder struct{ octets.Reader }

func newDecoder(b []byte) decoder { return decoder{octets.NewReader(b)} }

func (d *decoder) time() time.Time {
	ms := d.Varint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (d *decoder) usage() Usage {
	return Usage{d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint()}
}
