package ack

import (
	"net/netip"
	"time"

	"tollbridge/ipfix"
)

// A Kind is what the records of a Template are.
type Kind uint8

const (
	KindIdentity Kind = iota + 1
	KindGivenUp
	KindPullAnswer
	KindAcknowledgement
	KindHeldUp
	KindPull
	KindForwarded
)

// kinds has the elements that make a Template one of a kind, and their octets:
// the exact number, or the most of a number that may be encoded in fewer (RFC
// 7011, Section 6.2). Others may stand between them, in any order.
var kinds = []struct {
	kind     Kind
	elements [5]uint16
	lengths  [5]uint16
	exact    [5]bool
}{
	{KindIdentity, [5]uint16{ExporterInstance, MessagePosition, AcknowledgementVersion, AcknowledgementWants}, [5]uint16{16, 8, 1, 1}, [5]bool{true}},
	{KindGivenUp, [5]uint16{MessagePosition, LastMessagePosition, GivenUpRecords}, [5]uint16{8, 8, 8}, [5]bool{}},
	{KindPullAnswer, [5]uint16{PullRequest, PullResult, PullTime}, [5]uint16{8, 1, 8}, [5]bool{}},
	{KindAcknowledgement, [5]uint16{ExporterInstance, DurablePosition, AcknowledgementVersion}, [5]uint16{16, 8, 1}, [5]bool{true}},
	{KindHeldUp, [5]uint16{ExporterInstance, HoldReason}, [5]uint16{16, 1}, [5]bool{true}},
	{KindPull, [5]uint16{PullRequest, PullAddress, PullPrefixLength}, [5]uint16{8, 16, 1}, [5]bool{1: true}},
	{KindForwarded, [5]uint16{ForwardedKind, ForwardedSession, ForwardedStream, ForwardedTime, ForwardedOctets}, [5]uint16{1, 8, 2, 8, ipfix.VariableLength}, [5]bool{4: true}},
}

// A Layout reads the records of one Template. It is never changed.
type Layout struct {
	Kind   Kind
	fields [5]ipfix.Accessor // of the elements that make the kind, in their order
}

// NewLayout returns nil for a Template that is not of this vocabulary, as an
// enterprise has it; 0 has none.
func NewLayout(t *ipfix.Template, enterprise uint32) *Layout {
	if t.Scope == 0 || enterprise == 0 {
		return nil
	}
next:
	for _, k := range kinds {
		l := &Layout{Kind: k.kind}
		for i, id := range k.elements {
			if id == 0 {
				break
			}
			at, ok := t.Index(enterprise, id)
			if !ok {
				continue next
			}
			n := t.Fields[at].Length
			if n > k.lengths[i] || k.exact[i] && n != k.lengths[i] || n == 0 {
				continue next
			}
			l.fields[i] = t.AccessorAt(at)
		}
		return l
	}
	return nil
}

func (l *Layout) instance(r ipfix.Record) Instance { return Instance(l.fields[0].Bytes(r)) }

// Identity reads a record of KindIdentity.
func (l *Layout) Identity(r ipfix.Record) Identity {
	return Identity{l.instance(r), l.fields[1].Uint64(r), uint8(l.fields[2].Uint64(r)), Wants(l.fields[3].Uint64(r))}
}

// GivenUp reads a record of KindGivenUp.
func (l *Layout) GivenUp(r ipfix.Record) GivenUp {
	return GivenUp{l.fields[0].Uint64(r), l.fields[1].Uint64(r), l.fields[2].Uint64(r)}
}

// PullAnswer reads a record of KindPullAnswer.
func (l *Layout) PullAnswer(r ipfix.Record) PullAnswer {
	return PullAnswer{l.fields[0].Uint64(r), Result(l.fields[1].Uint64(r)), time.UnixMilli(int64(l.fields[2].Uint64(r))).UTC()}
}

// Acknowledgement reads a record of KindAcknowledgement.
func (l *Layout) Acknowledgement(r ipfix.Record) Acknowledgement {
	return Acknowledgement{l.instance(r), l.fields[1].Uint64(r), uint8(l.fields[2].Uint64(r))}
}

// HeldUp reads a record of KindHeldUp.
func (l *Layout) HeldUp(r ipfix.Record) HeldUp {
	return HeldUp{l.instance(r), Reason(l.fields[1].Uint64(r))}
}

// Pull reads a record of KindPull. The Prefix is invalid where the record's
// is.
func (l *Layout) Pull(r ipfix.Record) Pull {
	addr := netip.AddrFrom16([16]byte(l.fields[1].Bytes(r)))
	bits := int(l.fields[2].Uint64(r))
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	p := netip.PrefixFrom(addr, bits)
	if p.IsValid() {
		p = p.Masked()
	}
	return Pull{l.fields[0].Uint64(r), p}
}
