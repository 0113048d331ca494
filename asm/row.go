package asm

import "tollbridge/ipfix"

// A row is a record as numbers.
type row [slots]uint64

// rows are the records at hand as numbers: up to a chunk of them.
type rows struct {
	plan    *plan // that they were read by; where it has no column they are clear
	numbers [chunk * slots]uint64
	ahead   int // that are read
}

// by makes rows ready for records of p.
func (s *rows) by(p *plan) {
	if s.plan != p {
		s.plan = p
		clear(s.numbers[:])
	}
}

// read reads the next records of set, from the given one on, as far as they
// can be read together: see ipfix.Plan.ReadRows.
func (s *rows) read(set *ipfix.DataSet, from int) {
	s.ahead = s.plan.read.ReadRows(set, from, s.numbers[:], slots)
}

// of returns the row of r, which is the ith since read. It is good until the
// next call.
func (s *rows) of(r ipfix.Record, i int) *row {
	if i < s.ahead {
		return (*row)(s.numbers[i*slots:])
	}
	s.plan.read.Read(r, s.numbers[:slots])
	return (*row)(s.numbers[:])
}
