package asm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// SessionInfo is the data of an acct.EntryOpen: a Transport Session that
// began.
type SessionInfo struct {
	Transport     ipfix.Transport
	Exporter      string // configured or certificate identity
	Remote, Local netip.AddrPort
}

// sessionInfoVersion is the first octet of an encoded SessionInfo.
const sessionInfoVersion = 1

// AppendBinary appends what ParseSessionInfo reads. It returns no error.
func (i SessionInfo) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, sessionInfoVersion, byte(i.Transport))
	b = octets.AppendString(b, i.Exporter)
	for _, a := range []netip.AddrPort{i.Remote, i.Local} {
		b = octets.AppendAddr(b, a.Addr())
		b = binary.AppendUvarint(b, uint64(a.Port()))
	}
	return b, nil
}

// ParseSessionInfo reads what AppendBinary wrote. Errors match ErrCorrupt.
func ParseSessionInfo(data []byte) (SessionInfo, error) {
	r := octets.NewReader(data)
	i := readSessionInfo(&r)
	if err := r.Close(); err != nil {
		return SessionInfo{}, fmt.Errorf("asm: decode session info: %w", err)
	}
	return i, nil
}

func readSessionInfo(r *octets.Reader) (i SessionInfo) {
	if r.Octet() != sessionInfoVersion {
		r.Fail()
	}
	i.Transport = ipfix.Transport(r.Octet())
	i.Exporter = r.Text()
	for _, a := range []*netip.AddrPort{&i.Remote, &i.Local} {
		*a = netip.AddrPortFrom(r.Addr(), uint16(r.Uvarint()))
	}
	return i
}

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

// A domain is one Observation Domain of a Transport Session, with what its
// records have in common.
type domain struct {
	key        acct.LedgerKey
	row        *acct.LedgerRow // of key, good for one generation of the ledger
	generation uint64
	prefix     dedup.Hash // exporter and domain, of record identities
	messages   dedup.Hash // the same, of message identities
	totals     dedup.Hash // the same, of flows whose counters are totals
	plans      map[*ipfix.Template]*plan
	options    map[*ipfix.Template]optionsPlan
	decoded    bool // some Message of it was well-formed
}

// domain returns the Observation Domain id of t.
func (t *transport) domain(id uint32, key dedup.Key) *domain {
	if t.last != nil && t.last.key.Domain == id {
		return t.last
	}
	d := t.domains[id]
	if d == nil {
		name := cmp.Or(t.alias, t.info.Exporter)
		d = &domain{
			key:      acct.LedgerKey{Exporter: t.info.Exporter, Domain: id},
			prefix:   key.Hash().Uint64(recordIdentity).String(name).Uint64(uint64(id)),
			messages: key.Hash().Uint64(messageIdentity).String(name).Uint64(uint64(id)),
			totals:   key.Hash().Uint64(totalIdentity).String(name).Uint64(uint64(id)),
			plans:    make(map[*ipfix.Template]*plan),
			options:  make(map[*ipfix.Template]optionsPlan),
		}
		t.domains[id] = d
	}
	t.last = d
	return d
}

// name sets the name that identities are made with.
func (t *transport) name(name string) {
	if cmp.Or(t.alias, t.info.Exporter) != name {
		t.domains, t.last = make(map[uint32]*domain), nil
	}
	t.alias = name
}

// forget drops what domain made for an Observation Domain.
func (t *transport) forget(id uint32) {
	delete(t.domains, id)
	t.last = nil
}

// What identities begin with, so that those of records and of messages share
// one window.
const (
	recordIdentity  = 1
	messageIdentity = 2
	totalIdentity   = 3
	requestIdentity = 4
)

// plan returns the plan of a Template.
func (d *domain) plan(t *ipfix.Template, link bool) *plan {
	p := d.plans[t]
	if p == nil || p.counters.link != link {
		p = newPlan(t, d.prefix, link)
		p.refiner.bind(d.totals, t)
		d.plans[t] = p
	}
	return p
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

// An earlySet is a Data Set that came before its Template. It stays in the
// journal.
type earlySet struct {
	position uint64 // of its Message
	time     int64  // arrival, Unix nanoseconds
	interval int64  // of its ledger row, Unix seconds
	inner    int    // where in the entry the Message begins, which another collector had
	offset   int    // of the Set Header in the Message
	domain   uint32
	template uint16
	octets   int
	message  dedup.Identity // hash of the Message; or judgedFirst, judgedCopy
	partial  bool           // another Data Set of the Message was not kept, so it will never be decoded whole
}

// In place of the hash, what versions of this program before states of version 4
// had found out of a Message when it came: a whole one was asked for then, once,
// and not each of its Data Sets as it is decoded (see Module.repeated).
var (
	judgedFirst = dedup.ParseIdentity(append(make([]byte, dedup.IdentitySize-1), 1))
	judgedCopy  = dedup.ParseIdentity(append(make([]byte, dedup.IdentitySize-1), 2))
)

// An earlyAccount is what an exporter makes us keep.
type earlyAccount struct{ sets, octets int }

func (a *earlyAccount) release(e earlySet) {
	a.sets--
	a.octets -= e.octets
}

func (t *transports) account(s *transport) *earlyAccount {
	a := t.early[s.info.Exporter]
	if a == nil {
		a = &earlyAccount{}
		t.early[s.info.Exporter] = a
	}
	return a
}

// oldest returns the earliest position that an early Data Set needs, or
// otherwise if there is none.
func (t *transports) oldest(otherwise uint64) uint64 {
	for _, s := range t.open {
		for _, e := range s.early {
			otherwise = min(otherwise, e.position)
		}
	}
	return otherwise
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
