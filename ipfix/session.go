package ipfix

import (
	"cmp"
	"maps"
	"slices"
)

// Limits bound what an exporter can make a Session hold. Zero means the
// default.
type Limits struct {
	Templates int // at once, over all Observation Domains; 0 means 4096
	Fields    int // of one Template; 0 means 1024
	AllFields int // of all Templates together; 0 means 65536
	Domains   int // Observation Domains; 0 means 1024
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Templates: cmp.Or(l.Templates, 4096),
		Fields:    cmp.Or(l.Fields, 1024),
		AllFields: cmp.Or(l.AllFields, 65536),
		Domains:   cmp.Or(l.Domains, 1024),
	}
}

// A Session is what a Collecting Process knows of one Transport Session:
// Templates and sequence accounting, both per Observation Domain (RFC 7011,
// Section 3.4.1: Template IDs are unique per Transport Session and Observation
// Domain, so a Session is never shared between two). It belongs to one
// goroutine.
type Session struct {
	Limits Limits // may be set before the first Decode

	transport Transport
	domains   map[uint32]*domain
	templates int // in all domains
	fields    int // of them

	// Scratch of one Decode.
	sets  []dataSet
	undo  []change
	spans []span
}

// A domain is an Observation Domain within a Session.
type domain struct {
	id        uint32
	templates map[uint16]*Template
	sequence  sequence
}

// A dataSet is a Data Set found valid, or one without a Template.
type dataSet struct {
	set
	template *Template
	records  int
}

// A change is what a Message under validation did to a Template ID.
type change struct {
	id     uint16
	before *Template // nil if the ID was free
}

// NewSession returns the Session of a new Transport Session.
func NewSession(transport Transport) *Session {
	return &Session{transport: transport, domains: make(map[uint32]*domain)}
}

// Transport returns what the Session was made with.
func (s *Session) Transport() Transport { return s.transport }

// A Result says what a Message came to.
type Result struct {
	Header  Header
	Records uint64 // Data Records, those of options included; without those of Unknown sets

	// Sequence accounting; see Session.Decode.
	Lost      uint64 // Data Records that went missing before this Message, by sequence numbers
	Found     uint64 // of those that were Lost earlier, Data Records that this late Message brings
	Restarted bool   // the numbers began anew, so nothing is known of a loss

	TemplatesChanged bool        // a Template was added, replaced or withdrawn
	New              []*Template // added or replacing, in the order of the Message

	Unknown  int // Data Sets without their Template
	Reserved int // Sets of reserved Set IDs, which are ignored (RFC 7011, Section 3.3.2)
	Repeated int // Template Records that define again what holds: usual over UDP, to be logged elsewhere (Section 8.1)
	Ignored  int // withdrawals of what is not there, or over UDP (Sections 8.1 and 8.4)
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
// Sequence accounting, per Observation Domain: a number ahead of the expected
// one means that the records between are Lost; a later Message that carries
// numbers of such a gap has Found them; one that carries numbers seen before
// changes nothing, as it is a duplicate. Numbers that can't be explained so
// are a restart of the exporter: far ahead of what it could have sent in the
// time, far behind, or behind in a Message exported later. After a Data Set
// that could not be decoded the next number is taken on trust. Messages
// without Data Records don't advance the number; the next one has the same.
//
// Errors are DecodeErrors.
func (s *Session) Decode(msg []byte, visit func(DataSet)) (Result, error) {
	h, err := parseMessage(msg)
	if err != nil {
		return Result{}, err
	}
	d, known := s.domains[h.Domain]
	if !known {
		if len(s.domains) >= s.Limits.withDefaults().Domains {
			return Result{}, &DecodeError{12, "Observation Domain ID", ErrLimit}
		}
		d = &domain{id: h.Domain, templates: make(map[uint16]*Template)}
	}
	r := Result{Header: h}
	s.sets, s.undo = s.sets[:0], s.undo[:0]
	if err := s.apply(d, msg, &r); err != nil {
		for _, c := range slices.Backward(s.undo) {
			s.put(d, c.id, c.before)
		}
		return Result{}, err
	}
	if !known {
		s.domains[h.Domain] = d
	}
	d.sequence.account(h, &r)
	if visit == nil {
		return r, nil
	}
	for _, set := range s.sets {
		visit(s.dataSet(msg, h, set))
	}
	return r, nil
}

// apply validates the Sets of msg and applies the Templates among them,
// noting what they replace in s.undo, and the Data Sets in s.sets.
func (s *Session) apply(d *domain, msg []byte, r *Result) error {
	for at := HeaderLength; at < len(msg); {
		set, err := parseSet(msg, at)
		if err != nil {
			return err
		}
		at = set.end
		switch {
		case set.id >= minTemplateID:
			data, err := d.validate(msg, set)
			if err != nil {
				return err
			}
			if data.template == nil {
				r.Unknown++
			}
			r.Records += uint64(data.records)
			s.sets = append(s.sets, data)
		case set.id == templateSet || set.id == optionsTemplateSet:
			if err := s.templateSet(d, msg, set, r); err != nil {
				return err
			}
		default:
			r.Reserved++
		}
	}
	return nil
}

// validate checks a Data Set against its Template.
func (d *domain) validate(msg []byte, s set) (dataSet, error) {
	data := dataSet{set: s, template: d.templates[s.id]}
	if data.template == nil {
		return data, nil
	}
	var ok bool
	if data.records, ok = data.template.count(msg[s.at:s.end]); !ok {
		return data, &DecodeError{s.start, "Data Set", ErrLength}
	}
	return data, nil
}

// templateSet applies the records of a Template Set or Options Template Set.
func (s *Session) templateSet(d *domain, msg []byte, set set, r *Result) error {
	limits := s.Limits.withDefaults()
	for !set.done() {
		at := set.at
		def, err := set.template(msg)
		if err != nil {
			return err
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
			continue
		}
		if old != nil && s.transport.Reliable() {
			return &DecodeError{at, "Template Record", ErrConflict}
		}
		oldFields := 0
		if old != nil {
			oldFields = len(old.Fields)
		}
		if def.count > limits.Fields || old == nil && s.templates >= limits.Templates ||
			s.fields-oldFields+def.count > limits.AllFields {
			return &DecodeError{at, "Template Record", ErrLimit}
		}
		t := def.template(d.id)
		s.change(d, def.id, t)
		r.TemplatesChanged = true
		r.New = append(r.New, t)
	}
	return nil
}

// withdraw removes a Template, or all Templates or Options Templates of the
// domain if the ID is that of their Set. It reports whether there was any.
func (s *Session) withdraw(d *domain, id uint16, options bool) bool {
	if id >= minTemplateID {
		if d.templates[id] == nil {
			return false
		}
		s.change(d, id, nil)
		return true
	}
	any := false
	for id, t := range d.templates {
		if options == (t.Scope > 0) {
			s.change(d, id, nil)
			any = true
		}
	}
	return any
}

// change puts t, nil for none, in the place of a Template ID, so that it can
// be undone.
func (s *Session) change(d *domain, id uint16, t *Template) {
	s.undo = append(s.undo, change{id, d.templates[id]})
	s.put(d, id, t)
}

func (s *Session) put(d *domain, id uint16, t *Template) {
	if old := d.templates[id]; old != nil {
		s.templates--
		s.fields -= len(old.Fields)
		delete(d.templates, id)
	}
	if t != nil {
		s.templates++
		s.fields += len(t.Fields)
		d.templates[id] = t
	}
}

// dataSet returns the cursor over a Data Set.
func (s *Session) dataSet(msg []byte, h Header, set dataSet) DataSet {
	out := DataSet{
		Template: set.template, ID: set.id, Header: h, Offset: set.start, Records: set.records,
		octets: msg[set.at:set.end:set.end],
	}
	if t := set.template; t != nil && !t.Fixed() {
		if n := len(t.runs) - 1; len(s.spans) < n {
			s.spans = make([]span, n)
		}
		out.spans = &s.spans
	}
	return out
}

// DataSetAt returns the Data Set whose Set Header is at an offset of a Message
// that was decoded earlier, with the Template known now: nil if it is still
// not known. It changes nothing of the Session, but its records share scratch
// with those that a visit function reads. Errors are DecodeErrors.
func (s *Session) DataSetAt(msg []byte, offset int) (DataSet, error) {
	h, err := parseMessage(msg)
	if err != nil {
		return DataSet{}, err
	}
	if offset < HeaderLength || offset > len(msg) {
		return DataSet{}, &DecodeError{offset, "Set Header", ErrLength}
	}
	set, err := parseSet(msg, offset)
	if err != nil {
		return DataSet{}, err
	}
	if set.id < minTemplateID {
		return DataSet{}, &DecodeError{offset, "Data Set", ErrTemplateID}
	}
	data := dataSet{set: set}
	if d := s.domains[h.Domain]; d != nil {
		if data, err = d.validate(msg, set); err != nil {
			return DataSet{}, err
		}
	}
	return s.dataSet(msg, h, data), nil
}

// Template returns a Template of an Observation Domain, nil if there is none.
func (s *Session) Template(domain uint32, id uint16) *Template {
	if d := s.domains[domain]; d != nil {
		return d.templates[id]
	}
	return nil
}

// Templates returns all Templates by ascending Observation Domain and ID.
func (s *Session) Templates() []*Template {
	all := make([]*Template, 0, s.templates)
	for _, d := range s.domains {
		all = slices.AppendSeq(all, maps.Values(d.templates))
	}
	slices.SortFunc(all, func(a, b *Template) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.ID, b.ID))
	})
	return all
}
