package asm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// A transport is a Transport Session as the pipeline knows it.
type transport struct {
	number  uint64 // position of its EntryOpen
	info    SessionInfo
	decoder *ipfix.Session
	dirty   bool   // listed in Module.transports.dirty
	head    []byte // of a Message that another collector passes on in two parts; nil for none
	early   []earlySet
	domains map[uint32]*domain
	alias   string            // the name that identities are made with
	last    *domain           // the latest used
	losses  map[uint32][]loss // by Observation Domain
	clock   *exporterClock
	origin  origin // of one that another collector has
	orphan  int64  // over UDP, since when its Collecting Process is another, Unix nanoseconds; 0 for not
}

// transports are the Transport Sessions that are open.
type transports struct {
	open  map[uint64]*transport
	far   map[origin]*transport // of open, those that other collectors have
	dirty []*transport
	gone  []uint64                 // closed since the last checkpoint
	early map[string]*earlyAccount // by exporter

	lifetime time.Duration // Settings.TemplateLifetime
}

func newTransports() transports {
	return transports{open: make(map[uint64]*transport), far: make(map[origin]*transport), early: make(map[string]*earlyAccount)}
}

func (t *transports) touch(s *transport) {
	if !s.dirty {
		s.dirty = true
		t.dirty = append(t.dirty, s)
	}
}

// openSession begins Transport Session number. One over UDP takes over the
// decoding state, and the Data Sets that wait for Templates, of an open one
// that equals it: exporters over UDP don't know that we stopped (RFC 7011,
// Section 8.4). Over other transports an equal one can't be open any more.
func (t *transports) openSession(number uint64, info SessionInfo, from origin) {
	s := &transport{number: number, info: info, origin: from, domains: make(map[uint32]*domain)}
	for _, old := range t.open {
		if old.info != info || old.origin.collector != from.collector {
			continue
		}
		if info.Transport == ipfix.UDP {
			s.decoder, s.early, old.early = old.decoder, old.early, nil
			s.losses = old.losses
		}
		t.close(old)
		break // there is at most one
	}
	if s.decoder == nil {
		s.decoder = ipfix.NewSession(info.Transport)
		s.decoder.TemplateLifetime = t.lifetime
	}
	t.open[number] = s
	if from != (origin{}) {
		t.far[from] = s
	}
	t.touch(s)
}

// close forgets s. What waited there for a Template stays undecoded for good.
func (t *transports) close(s *transport) {
	for _, e := range s.early {
		t.account(s).release(e)
	}
	s.early = nil
	delete(t.open, s.number)
	if t.far[s.origin] == s {
		delete(t.far, s.origin)
	}
	t.gone = append(t.gone, s.number)
}

// beginAnew closes all sessions of a collector, zero for this one, whose
// Collecting Process began anew, but those over UDP: whichever of them goes on
// is opened again.
func (t *transports) beginAnew(of origin, now int64) {
	for _, s := range t.sorted() {
		switch {
		case s.origin.collector != of.collector || s.origin.instance != of.instance:
		case s.info.Transport != ipfix.UDP:
			t.close(s)
		case s.orphan == 0:
			s.orphan = now
			t.touch(s)
		}
	}
}

// orphanWait is for how long a session over UDP may go on after its Collecting
// Process began anew. One that is idle is closed sooner while it runs.
const orphanWait = int64(time.Hour)

// expire closes sessions over UDP that have not gone on: exporters that take
// another port each time leave many.
func (t *transports) expire(now int64) {
	for _, s := range t.sorted() {
		if s.orphan != 0 && s.orphan <= now-orphanWait {
			t.close(s)
		}
	}
}

// sorted returns the open sessions by ascending number.
func (t *transports) sorted() []*transport {
	return slices.SortedFunc(maps.Values(t.open), func(a, b *transport) int { return cmp.Compare(a.number, b.number) })
}

// transportVersion is the first octet of an encoded transport.
const transportVersion = 6

// appendState appends what a restart needs of s.
func (s *transport) appendState(b []byte) ([]byte, error) {
	b = append(b, transportVersion)
	info, err := s.info.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	b = octets.AppendBytes(b, info)
	b = binary.AppendUvarint(b, uint64(len(s.early)))
	for _, e := range s.early {
		b = binary.AppendUvarint(b, e.position)
		b = binary.AppendVarint(b, e.time)
		b = binary.AppendVarint(b, e.interval)
		b = binary.AppendUvarint(b, uint64(e.inner))
		b = binary.AppendUvarint(b, uint64(e.offset))
		b = binary.AppendUvarint(b, uint64(e.domain))
		b = binary.AppendUvarint(b, uint64(e.template))
		b = binary.AppendUvarint(b, uint64(e.octets))
		b = e.message.Append(b)
		b = octets.AppendBool(b, e.partial)
	}
	b = s.appendLosses(b)
	b = s.origin.append(b)
	b = octets.AppendBytes(b, s.head)
	b = binary.AppendVarint(b, s.orphan)
	return s.decoder.AppendBinary(b)
}

// restore takes in a session as appendState wrote it.
func (t *transports) restore(number uint64, state []byte) error {
	r := octets.NewReader(state)
	version := r.Octet()
	if version < 1 || version > transportVersion {
		r.Fail()
	}
	info := octets.NewReader(r.Bytes())
	s := &transport{number: number, info: readSessionInfo(&info), domains: make(map[uint32]*domain)}
	s.early = make([]earlySet, r.Count())
	for i := range s.early {
		e := earlySet{position: r.Uvarint(), time: r.Varint(), interval: r.Varint()}
		if version > 2 {
			e.inner = int(r.Uvarint())
		}
		e.offset, e.domain, e.template, e.octets = int(r.Uvarint()), uint32(r.Uvarint()), uint16(r.Uvarint()), int(r.Uvarint())
		if version > 3 {
			e.message = dedup.ReadIdentity(&r)
		} else {
			e.message = judgedFirst
			if r.Bool() { // the Message had come before
				e.message = judgedCopy
			}
		}
		e.partial = r.Bool()
		s.early[i] = e
	}
	if version > 1 {
		s.restoreLosses(&r)
	}
	if version > 2 {
		s.origin = readOrigin(&r)
	}
	if version > 4 {
		if head := r.Bytes(); len(head) > 0 {
			s.head = bytes.Clone(head)
		}
	}
	if version > 5 {
		s.orphan = r.Varint()
	}
	if err := r.Err(); err != nil {
		return err
	}
	if err := info.Close(); err != nil {
		return err
	}
	s.decoder = ipfix.NewSession(s.info.Transport)
	s.decoder.TemplateLifetime = t.lifetime
	if err := s.decoder.UnmarshalBinary(r.Rest()); err != nil {
		return err
	}
	for _, e := range s.early {
		a := t.account(s)
		a.sets++
		a.octets += e.octets
	}
	t.open[number] = s
	if s.origin != (origin{}) {
		t.far[s.origin] = s
	}
	return nil
}
