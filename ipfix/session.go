package ipfix

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"
)

// Limits bound what an exporter can make a Session hold. Zero means the
// default.
type Limits struct {
	Templates int // at once, over all Observation Domains; 0 means 4096
	Fields    int // of one Template; 0 means 1024
	AllFields int // of all Templates together; 0 means 65536
	Domains   int // Observation Domains; 0 means 1024
	Streams   int // SCTP streams with Data Records, over all domains, but for stream 0; 0 means 4096
	Elements  int // whose type information is kept (RFC 5610), in 128 KiB of text; 0 means 1024
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Templates: cmp.Or(l.Templates, 4096),
		Fields:    cmp.Or(l.Fields, 1024),
		AllFields: cmp.Or(l.AllFields, 65536),
		Domains:   cmp.Or(l.Domains, 1024),
		Streams:   cmp.Or(l.Streams, 4096),
		Elements:  cmp.Or(l.Elements, 1024),
	}
}

// A Session is what a Collecting Process knows of one Transport Session:
// Templates and sequence accounting, both per Observation Domain (RFC 7011,
// Section 3.4.1: Template IDs are unique per Transport Session and Observation
// Domain, so a Session is never shared between two). It belongs to one
// goroutine.
//
// NetFlow packets of versions 9 and 5 are Messages too. Each version has
// Observation Domains of its own: a Source ID, or an engine type and ID.
type Session struct {
	// Limits may be set before the first Decode.
	Limits Limits

	// TemplateLifetime is how long a Template holds over UDP and DTLS after
	// the Message that defined it last (RFC 7011, Section 8.4); 0 means for
	// ever. It should be three times what the exporter's refresh is, or more.
	// It may be set between Messages.
	TemplateLifetime time.Duration

	// Arrival is when the next Message arrived, in Unix seconds, by which
	// lifetimes go; 0 means its Export Time. It may be set between Messages.
	Arrival uint32

	// Salvage has Decode read the records that are there of a NetFlow packet of
	// version 5 whose header counts more, and return ErrCount beside the Result.
	// The count is all that such a packet has to tell that it is damaged, so its
	// records are for people to look at, not to bill from. Otherwise it is
	// malformed. It may be set between Messages.
	Salvage bool

	transport Transport
	domains   map[domainKey]*domain
	latest    *domain   // one of domains, the latest used
	shared    [3]shared // by version
	templates int       // in all domains, but for built-in ones
	fields    int       // of them
	streams   int       // in all domains, but for stream 0
	elements  map[Element]TypeInformation
	text      int // octets of their names and descriptions

	// Scratch of one Decode.
	sets       []dataSet
	undo       []change
	layout     layout
	specifiers []byte // Field Specifiers of a NetFlow Template
	stamps     []byte // Data Sets with stamps
}

// A domainKey names an Observation Domain of a Session.
type domainKey uint64

func (h Header) domainKey() domainKey { return domainKey(h.Version)<<32 | domainKey(h.Domain) }
func (k domainKey) id() uint32        { return uint32(k) }
func (k domainKey) version() uint16   { return uint16(k >> 32) }

// A domain is an Observation Domain within a Session.
type domain struct {
	key       domainKey
	templates map[uint16]*Template
	defined   map[uint16]uint32 // when the latest definition came, of Templates over UDP and DTLS; Unix seconds
	sequence  sequence
	streams   map[uint16]*sequence // of SCTP, but for stream 0
}

func newDomain(key domainKey) *domain {
	d := &domain{key: key, templates: make(map[uint16]*Template)}
	if key.version() == NetFlow9 {
		d.sequence.unit = UnitMessages
	}
	return d
}

// A dataSet is a Data Set found valid, or one without a Template.
type dataSet struct {
	set
	template *Template
	records  int
}

// A change is what a Message under validation did to a Template ID.
type change struct {
	id      uint16
	before  *Template // nil if the ID was free
	defined uint32
	timed   bool // there was a time
}

// NewSession returns the Session of a new Transport Session.
func NewSession(transport Transport) *Session {
	return &Session{transport: transport, domains: make(map[domainKey]*domain)}
}

// Transport returns what the Session was made with.
func (s *Session) Transport() Transport { return s.transport }

// A Result says what a Message came to.
type Result struct {
	Header  Header
	Records uint64 // Data Records, those of options included; without those of Unknown sets

	// Sequence accounting; see Session.Decode.
	Lost      uint64 // Data Records that went missing before this Message, by sequence numbers
	Found     uint64 // of those that were Lost earlier, Data Records that this late Message brings, or that were not lost after all
	Restarted bool   // the numbers began anew, so nothing is known of a loss
	Counting  Counting

	// Of numbers that count Messages.
	LostMessages, FoundMessages uint64

	TemplatesChanged bool        // a Template was added, replaced or withdrawn
	New              []*Template // added or replacing, in the order of the Message

	Unknown  int // Data Sets without their Template
	Reserved int // Sets of reserved Set IDs, which are ignored (RFC 7011, Section 3.3.2)
	Repeated int // Template Records that define again what holds: usual over UDP, to be logged elsewhere (Section 8.1)
	Ignored  int // withdrawals of what is not there, or over UDP (Sections 8.1 and 8.4)
	Expired  int // Templates whose lifetime had passed when a Data Set came, which is among Unknown
}

// Decode decodes one whole Message. It checks all of it first: a malformed
// Message changes nothing and nothing of it is visited (RFC 7011,
// Section 9.1). Then its Templates hold, and visit is called for each Data Set
// in order, options data included; one whose Template is not known has a nil
// Template, and may be kept for DataSetAt. Templates of the Message hold for
// the Sets that follow them.
//
// The same definition of a Template ID again is no change. Another one replaces
// it over UDP and DTLS, where withdrawals are ignored (Section 8.4); over other
// transports it must be withdrawn first, else ErrConflict (Section 8.1). A
// withdrawal of what is not there is no change.
//
// A NetFlow packet is decoded likewise. Its Template Records are read in the
// terms of IPFIX, and may always change without a withdrawal, which there is
// none of; fields of vendors (types above 32767) are of NetFlowPEN. Records
// that tell times by the exporter's up time get one more field,
// systemInitTimeMilliseconds, which makes those times absolute; records of
// version 5 get samplingInterval and samplingAlgorithm where its header says
// so. Templates and records then hold these fields as if they had been sent.
// The Templates of version 5 are built in.
//
// Sequence accounting, per Observation Domain: a number ahead of the expected
// one means that the records between are Lost; a later Message that carries
// numbers of such a gap has Found them; one that carries numbers seen before
// changes nothing, as it is a duplicate. Numbers that can't be explained so
// are a restart of the exporter: far ahead of what it could have sent in the
// time, far behind, or behind in a Message exported later. After a Data Set
// that could not be decoded the next number is taken on trust. Messages
// without Data Records don't advance the number; the next one has the same.
//
// Where numbers count Messages, as those of NetFlow version 9 should, Lost is
// LostMessages times the Data Records of a Message, of late. Exporters that
// count otherwise than they should are recognized, see Counting. What is Found
// is never more than what was Lost.
//
// Errors are DecodeErrors. But for Salvage, the Result is then empty.
func (s *Session) Decode(msg []byte, visit func(DataSet)) (Result, error) {
	return s.DecodeStream(msg, 0, visit)
}

// DecodeStream decodes a Message that came over an SCTP stream, where each
// stream has sequence numbers of its own (RFC 7011, Section 3.1). Templates
// hold for all streams.
func (s *Session) DecodeStream(msg []byte, stream uint16, visit func(DataSet)) (Result, error) {
	h, fault := MessageHeader(msg)
	if fault != nil && !(s.Salvage && errors.Is(fault, ErrCount)) {
		return Result{}, fault
	}
	d, known := s.latest, true
	if d == nil || d.key != h.domainKey() {
		d, known = s.domains[h.domainKey()]
	}
	if !known {
		if len(s.domains) >= s.Limits.withDefaults().Domains {
			return Result{}, &DecodeError{12, "Observation Domain ID", ErrLimit}
		}
		d = newDomain(h.domainKey())
	}
	q := &d.sequence
	if stream != 0 {
		if q = d.streams[stream]; q == nil && s.streams >= s.Limits.withDefaults().Streams {
			return Result{}, &DecodeError{0, "SCTP stream", ErrLimit}
		}
	}
	r := Result{Header: h}
	s.sets, s.undo, s.stamps = s.sets[:0], s.undo[:0], s.stamps[:0]
	n, err := s.apply(d, msg, &r)
	if err != nil {
		for _, c := range slices.Backward(s.undo) {
			s.put(d, c.id, c.before)
			if c.timed {
				d.defined[c.id] = c.defined
			}
		}
		return Result{}, err
	}
	if !known {
		s.domains[d.key] = d
	}
	s.latest = d
	if q == nil {
		q = s.newStream(d, stream)
	}
	if s.transport == SCTP || len(s.domains) == 1 {
		q.account(&h, &n, 0, &r)
	} else {
		s.sharedOf(h.Version).account(d, q, &h, &n, &r, s.domains)
	}
	for i := range s.sets {
		if t := s.sets[i].template; t != nil && t.typeInfo {
			s.learn(s.dataSet(msg, h, s.sets[i]))
		}
	}
	if visit == nil {
		return r, fault
	}
	for _, set := range s.sets {
		visit(s.dataSet(msg, h, set))
	}
	return r, fault
}

// newStream begins the sequence accounting of an SCTP stream.
func (s *Session) newStream(d *domain, stream uint16) *sequence {
	if d.streams == nil {
		d.streams = make(map[uint16]*sequence)
	}
	q := &sequence{unit: newDomain(d.key).sequence.unit}
	d.streams[stream] = q
	s.streams++
	return q
}

func (s *Session) sharedOf(version uint16) *shared {
	switch version {
	case NetFlow9:
		return &s.shared[1]
	case NetFlow5:
		return &s.shared[2]
	}
	return &s.shared[0]
}

// apply validates the Sets of msg and applies the Templates among them,
// noting what they replace in s.undo, and the Data Sets in s.sets. It returns
// what the Message advances sequence numbers by.
func (s *Session) apply(d *domain, msg []byte, r *Result) (tally, error) {
	n := tally{UnitMessages: 1}
	h := &r.Header
	if h.Version == NetFlow5 {
		s.addSet(r, &n, d.netFlow5(h))
		return n, nil
	}
	for at := h.size(); at < len(msg); {
		set, err := h.set(msg, at)
		if err != nil {
			return n, err
		}
		at = set.end
		switch {
		case set.id >= minTemplateID:
			if s.TemplateLifetime > 0 {
				s.expire(d, set.id, r)
			}
			data, err := d.validate(msg, set)
			if err != nil {
				return n, err
			}
			s.addSet(r, &n, data)
		case set.templates():
			templates, err := s.templateSet(d, msg, set, r)
			if err != nil {
				return n, err
			}
			n[UnitAll] += templates
		default:
			r.Reserved++
		}
	}
	return n, nil
}

// addSet notes a Data Set.
func (s *Session) addSet(r *Result, n *tally, data dataSet) {
	records := uint32(data.records)
	switch {
	case data.template == nil:
		r.Unknown++
	case data.template.Scope == 0:
		n[UnitFlows] += records
	}
	r.Records += uint64(records)
	n[UnitRecords] += records
	n[UnitAll] += records
	s.sets = append(s.sets, data)
}

// validate checks a Data Set against its Template.
func (d *domain) validate(msg []byte, s set) (dataSet, error) {
	data := dataSet{set: s, template: d.templates[s.id]}
	if data.template == nil {
		return data, nil
	}
	var ok bool
	if data.records, ok = data.template.asSent().count(msg[s.at:s.end]); !ok {
		return data, &DecodeError{s.start, "Data Set", ErrLength}
	}
	return data, nil
}

// templateSet applies the records of a Template Set or Options Template Set,
// and returns how many there were.
func (s *Session) templateSet(d *domain, msg []byte, set set, r *Result) (records uint32, err error) {
	limits := s.Limits.withDefaults()
	for !set.done(msg) {
		at := set.at
		def, err := set.template(msg, s.specifiers)
		if err != nil {
			return records, err
		}
		records++
		if set.netFlow {
			s.specifiers = def.fields
		}
		if def.count == 0 {
			if !s.transport.Reliable() || !s.withdraw(d, def.id, set.id == optionsTemplateSet) {
				r.Ignored++
				continue
			}
			r.TemplatesChanged = true
			continue
		}
		old := d.templates[def.id]
		if old != nil && def.defines(old) {
			r.Repeated++
			if !s.transport.Reliable() {
				s.change(d, def.id, old, s.now(&r.Header))
			}
			continue
		}
		if old != nil && s.transport.Reliable() && !set.netFlow {
			return records, &DecodeError{at, "Template Record", ErrConflict}
		}
		oldFields := 0
		if old != nil {
			oldFields = len(old.Fields)
		}
		count := def.count + def.stampFields()
		if count > limits.Fields || old == nil && s.templates >= limits.Templates ||
			s.fields-oldFields+count > limits.AllFields {
			return records, &DecodeError{at, "Template Record", ErrLimit}
		}
		t := def.template(d.key.id())
		s.change(d, def.id, t, s.now(&r.Header))
		r.TemplatesChanged = true
		r.New = append(r.New, t)
	}
	return records, nil
}

// now returns the time that lifetimes go by.
func (s *Session) now(h *Header) uint32 { return cmp.Or(s.Arrival, h.ExportTime) }

// lives reports whether Templates have a lifetime.
func (s *Session) lives() bool { return s.TemplateLifetime > 0 && !s.transport.Reliable() }

// expire removes a Template whose lifetime has passed.
func (s *Session) expire(d *domain, id uint16, r *Result) {
	if !s.lives() {
		return
	}
	defined, ok := d.defined[id]
	if !ok {
		return
	}
	age := int32(s.now(&r.Header) - defined)
	if time.Duration(age)*time.Second > s.TemplateLifetime {
		s.change(d, id, nil, 0)
		r.TemplatesChanged = true
		r.Expired++
	}
}

// withdraw removes a Template, or all Templates or Options Templates of the
// domain if the ID is that of their Set. It reports whether there was any.
func (s *Session) withdraw(d *domain, id uint16, options bool) bool {
	if id >= minTemplateID {
		if d.templates[id] == nil {
			return false
		}
		s.change(d, id, nil, 0)
		return true
	}
	any := false
	for id, t := range d.templates {
		if options == (t.Scope > 0) {
			s.change(d, id, nil, 0)
			any = true
		}
	}
	return any
}

// change puts t, nil for none, in the place of a Template ID, so that it can
// be undone. A Message that comes late makes no definition older than it was.
func (s *Session) change(d *domain, id uint16, t *Template, at uint32) {
	before, timed := d.defined[id]
	s.undo = append(s.undo, change{id, d.templates[id], before, timed})
	s.put(d, id, t)
	if t == nil || s.transport.Reliable() {
		return
	}
	if timed && int32(before-at) > 0 {
		at = before
	}
	if d.defined == nil {
		d.defined = make(map[uint16]uint32)
	}
	d.defined[id] = at
}

// put puts t, nil for none, in the place of a Template ID, of no time.
func (s *Session) put(d *domain, id uint16, t *Template) {
	if old := d.templates[id]; old != nil {
		s.templates--
		s.fields -= len(old.Fields)
		delete(d.templates, id)
		delete(d.defined, id)
	}
	if t == nil {
		return
	}
	s.templates++
	s.fields += len(t.Fields)
	d.templates[id] = t
}

// dataSet returns the cursor over a Data Set.
func (s *Session) dataSet(msg []byte, h Header, set dataSet) DataSet {
	out := DataSet{
		Template: set.template, ID: set.id, Header: h, Offset: set.start, Records: set.records,
		octets: msg[set.at:set.end:set.end],
	}
	if t := set.template; t != nil {
		out.layout = t.layout(&s.layout)
		if t.sent != nil {
			start := len(s.stamps)
			s.stamps = t.stamp(s.stamps, out.octets, &h, &s.layout)
			out.octets = s.stamps[start:len(s.stamps):len(s.stamps)]
		}
	}
	return out
}

// DataSetAt returns the Data Set whose Set Header is at an offset of a Message
// that was decoded earlier, with the Template known now: nil if it is still
// not known. It changes nothing of the Session, but its records share scratch
// with those that a visit function reads. Errors are DecodeErrors.
func (s *Session) DataSetAt(msg []byte, offset int) (DataSet, error) {
	h, err := MessageHeader(msg)
	if err != nil {
		return DataSet{}, err
	}
	d := s.domains[h.domainKey()]
	s.stamps = s.stamps[:0]
	if h.Version == NetFlow5 {
		if offset != netFlow5HeaderLength || d == nil {
			return DataSet{}, &DecodeError{offset, "NetFlow 5 records", ErrLength}
		}
		return s.dataSet(msg, h, d.netFlow5(&h)), nil
	}
	if offset < h.size() || offset > len(msg) {
		return DataSet{}, &DecodeError{offset, "Set Header", ErrLength}
	}
	set, err := h.set(msg, offset)
	if err != nil {
		return DataSet{}, err
	}
	if set.id < minTemplateID {
		return DataSet{}, &DecodeError{offset, "Data Set", ErrTemplateID}
	}
	data := dataSet{set: set}
	if d != nil {
		if data, err = d.validate(msg, set); err != nil {
			return DataSet{}, err
		}
	}
	return s.dataSet(msg, h, data), nil
}

// versions are those that Messages may have.
var versions = [...]uint16{Version, NetFlow9, NetFlow5}

// Template returns a Template of an Observation Domain, nil if there is none.
// An exporter that speaks IPFIX and NetFlow in one domain of one Transport
// Session may have several; that of IPFIX goes first.
func (s *Session) Template(domain uint32, id uint16) *Template {
	for _, v := range versions {
		if d := s.domains[domainKey(v)<<32|domainKey(domain)]; d != nil && d.templates[id] != nil {
			return d.templates[id]
		}
	}
	return nil
}

// Templates returns all Templates by ascending Observation Domain and ID.
func (s *Session) Templates() []*Template {
	all := make([]*Template, 0, s.templates)
	for _, key := range slices.Sorted(maps.Keys(s.domains)) {
		d := s.domains[key]
		all = slices.AppendSeq(all, maps.Values(d.templates))
	}
	slices.SortStableFunc(all, func(a, b *Template) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.ID, b.ID))
	})
	return all
}
