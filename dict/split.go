package dict

import (
	"errors"
	"fmt"

	"tollbridge/dict/avp"
)

// ErrTooSmall says that a limit leaves no room for even one fragment.
var ErrTooSmall = errors.New("limit is too small")

// fragmentOverhead is what a Flow-Fragment with four octets of data takes in a
// Flow of its own.
const fragmentOverhead = 12 + 12 + 4

// Split cuts the AVPs of a record's Flow into parts of at most limit octets,
// each for an accounting request of its own (acct.Record.Part). One part comes
// back as it was. A Flow AVP is cut between its elements: every part has a Flow
// AVP with the next of them, the last with the Flow-Template. An element or
// another AVP that alone is larger than a part is cut into Flow-Fragment AVPs.
//
// Join puts the parts together again. An error is ErrTooSmall, for a limit
// below 32 octets, or one of package avp.
func (d *Dictionary) Split(flow []byte, limit int) ([][]byte, error) {
	if len(flow) <= limit {
		return [][]byte{flow}, nil
	}
	if limit < fragmentOverhead+4 {
		return nil, fmt.Errorf("dict: split %d octets into parts of %d: %w", len(flow), limit, ErrTooSmall)
	}
	s := splitter{vendor: d.vendor, limit: limit}
	for a, err := range avp.Scan(flow) {
		if err != nil {
			return nil, fmt.Errorf("dict: split: %w", err)
		}
		size := avp.Size(a.Vendor, len(a.Data))
		if !a.Is(Flow, d.vendor) {
			s.add(a, size, false)
			continue
		}
		if size <= limit-len(s.part) {
			s.add(a, size, false)
			continue
		}
		for member, err := range avp.Scan(a.Data) {
			if err != nil {
				return nil, fmt.Errorf("dict: split: %w", err)
			}
			s.add(member, avp.Size(member.Vendor, len(member.Data)), true)
		}
		s.endFlow()
	}
	s.endPart()
	return s.parts, nil
}

// A splitter fills parts one after the other.
type splitter struct {
	vendor uint32
	limit  int
	parts  [][]byte
	part   []byte
	inFlow bool
	flow   int // where in part the Flow AVP begins
}

// add adds an AVP of size octets to the part, or to a Flow AVP in it; to the
// next part where it does not fit.
func (s *splitter) add(a avp.AVP, size int, member bool) {
	room := s.limit - len(s.part)
	if member && !s.inFlow {
		room -= 12
	}
	if size > room {
		if room = s.limit; member {
			room -= 12
		}
		if size > room {
			s.fragment(a.Append(nil))
			if !member {
				s.endFlow()
			}
			return
		}
		s.endPart()
	}
	if member {
		s.beginFlow()
	}
	s.part = a.Append(s.part)
}

// fragment adds an AVP as Flow-Fragments, each filling what is left of a part.
func (s *splitter) fragment(b []byte) {
	for len(b) > 0 {
		need := fragmentOverhead
		if s.inFlow {
			need -= 12
		}
		if s.limit-len(s.part) < need {
			s.endPart()
		}
		s.beginFlow()
		// A multiple of four needs no padding, so the part is filled exactly.
		n := min(len(b), (s.limit-len(s.part)-12)&^3)
		s.part = avp.Append(s.part, FlowFragment, s.vendor, 0, b[:n])
		b = b[n:]
	}
}

func (s *splitter) beginFlow() {
	if !s.inFlow {
		s.part, s.flow = avp.Begin(s.part, Flow, s.vendor, 0)
		s.inFlow = true
	}
}

func (s *splitter) endFlow() {
	if s.inFlow {
		avp.End(s.part, s.flow)
		s.inFlow = false
	}
}

func (s *splitter) endPart() {
	s.endFlow()
	if len(s.part) > 0 {
		s.parts = append(s.parts, s.part)
		s.part = nil
	}
}

// Join returns the AVPs that Split cut into parts, which must be all of them
// in order. Errors match ErrFlow or one of package avp.
func (d *Dictionary) Join(parts ...[]byte) ([]byte, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	j := joiner{d: d}
	for _, part := range parts {
		for a, err := range avp.Scan(part) {
			if err != nil {
				return nil, fmt.Errorf("dict: join: %w", err)
			}
			if a.Is(ExporterName, d.vendor) && j.inFlow {
				continue // each part has one, and the last comes behind the Flow
			}
			if !a.Is(Flow, d.vendor) {
				j.out = a.Append(j.out)
				continue
			}
			if err := j.join(a.Data); err != nil {
				return nil, fmt.Errorf("dict: join: %w", err)
			}
		}
	}
	if j.inFlow || len(j.fragments) > 0 {
		return nil, fmt.Errorf("dict: join: the last Flow has no Flow-Template: %w", ErrFlow)
	}
	return j.out, nil
}

// A joiner collects the members of Flow AVPs until one brings the
// Flow-Template.
type joiner struct {
	d         *Dictionary
	out       []byte
	inFlow    bool
	flow      int    // where in out the Flow AVP begins
	fragments []byte // of AVPs that are not complete yet
}

func (j *joiner) join(group []byte) error {
	for a, err := range avp.Scan(group) {
		if err != nil {
			return err
		}
		if !a.Is(FlowFragment, j.d.vendor) {
			if err := j.complete(); err != nil {
				return err
			}
			j.member(a)
			continue
		}
		j.fragments = append(j.fragments, a.Data...)
	}
	// Fragments at the end of a part go on in the next, unless they are whole.
	if avp.Check(j.fragments) == nil {
		return j.complete()
	}
	return nil
}

// complete adds the AVPs that the fragments make up.
func (j *joiner) complete() error {
	for a, err := range avp.Scan(j.fragments) {
		if err != nil {
			return fmt.Errorf("fragments: %w", err)
		}
		j.member(a)
	}
	j.fragments = j.fragments[:0]
	return nil
}

func (j *joiner) member(a avp.AVP) {
	if a.Vendor != j.d.vendor { // such as a Classifier, which is no member but was fragmented
		j.out = a.Append(j.out)
		return
	}
	if !j.inFlow {
		j.out, j.flow = avp.Begin(j.out, Flow, j.d.vendor, 0)
		j.inFlow = true
	}
	j.out = a.Append(j.out)
	if a.Is(FlowTemplate, j.d.vendor) {
		avp.End(j.out, j.flow)
		j.inFlow = false
	}
}
