package ipfix

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strconv"
)

// A Form says what a Column holds.
type Form uint8

const (
	// Number is an unsigned integer of up to eight octets, or the octets of a
	// flag or identifier read as one.
	Number Form = iota

	// Address is an IPv4 or IPv6 address. It takes two slots of a row: the
	// high and the low half of the IPv6 address, or of the IPv4-mapped one.
	Address

	// UnixMilli is a time of any of the four encodings, as non-negative Unix
	// milliseconds.
	UnixMilli
)

// An Element names an Information Element.
type Element struct {
	Enterprise uint32
	ID         uint16
}

// String returns the numbers: "130", "6871/18".
func (e Element) String() string {
	if e.Enterprise == 0 {
		return strconv.Itoa(int(e.ID))
	}
	return fmt.Sprintf("%d/%d", e.Enterprise, e.ID)
}

// A Column is a value wanted from records: the first of Elements that a
// Template has and whose length there suits the Form.
type Column struct {
	Slot     int // index into the row
	Form     Form
	Elements []Element
}

// A Plan reads several columns of a Template's records at once into a row of
// numbers. It is the fast way: one load per value and no branch, but for values
// of variable length and those with less than eight octets of the record before
// their end and behind their beginning. It is
// never changed, so it may be used by many goroutines at once.
type Plan struct {
	pairs  []pair     // most of them
	loads  int        // in pairs
	reach  int        // octets of a record that they read
	shifts []planLoad // those that need a shift
	rest   bool       // there are any of the following

	together bool // ReadRows reads all columns

	groups   []planGroup
	scans    []planScan
	converts []convert

	fields []int // by column: the field it reads, -1 for none
	width  int   // slots that a row must have
}

type planLoad struct {
	mask, or uint64
	offset   int32 // from the base
	slot     uint16
	shift    uint8
}

// A planGroup is the loads that lie behind so many values of variable length.
type planGroup struct {
	base  uint16
	loads []planLoad
}

// A planScan reads a value that no load can.
type planScan struct {
	place *place
	slot  uint16
	form  Form
}

// A convert turns a loaded time into Unix milliseconds.
type convert struct {
	slot uint16
	typ  Type
}

// Plan compiles columns for records of t. It panics if a Slot is not from 0
// to 65534.
func (t *Template) Plan(columns ...Column) *Plan {
	p := &Plan{fields: make([]int, len(columns))}
	for i, c := range columns {
		slots := 1
		if c.Form == Address {
			slots = 2
		}
		if c.Slot < 0 || c.Slot >= math.MaxUint16 {
			panic("ipfix: Column.Slot is out of range")
		}
		p.width = max(p.width, c.Slot+slots)
		p.fields[i] = t.column(c)
		if p.fields[i] >= 0 {
			p.add(t, p.fields[i], c)
		}
	}
	p.rest = len(p.groups)+len(p.scans)+len(p.converts) > 0
	p.together = t.Fixed() && len(p.scans) == 0
	return p
}

// column returns the field that c takes, -1 for none.
func (t *Template) column(c Column) int {
	for _, e := range c.Elements {
		i, ok := t.Index(e.Enterprise, e.ID)
		if !ok {
			continue
		}
		n := int(t.Fields[i].Length)
		suits := n == VariableLength
		switch c.Form {
		case Number:
			suits = suits || n >= 1 && n <= 8
		case Address:
			suits = suits || n == 4 || n == 16
		case UnixMilli:
			suits = t.Fields[i].Element().Type.isTime(n)
		}
		if suits {
			return i
		}
	}
	return -1
}

func (p *Plan) add(t *Template, field int, c Column) {
	at, slot := &t.places[field], uint16(c.Slot)
	switch {
	case c.Form == Address && at.length == 16:
		p.load(t.load(field, 0, 8), slot, 0)
		p.load(t.load(field, 8, 8), slot+1, 0)
	case at.load.mask == 0:
		p.scans = append(p.scans, planScan{at, slot, c.Form})
	case c.Form == Address:
		p.load(at.load, slot+1, mappedIPv4)
	case c.Form == UnixMilli && at.typ == TypeDateTimeMilliseconds:
		l := at.load
		l.mask &= milliMask
		p.load(l, slot, 0)
	default:
		p.load(at.load, slot, 0)
		if c.Form == UnixMilli {
			p.converts = append(p.converts, convert{slot, at.typ})
		}
	}
}

func (p *Plan) load(l load, slot uint16, or uint64) {
	pl := planLoad{l.mask, or, l.offset, slot, l.shift}
	if l.base == 0 && l.shift == 0 {
		p.pairs = appendPair(p.pairs, p.loads%2 == 1, pl)
		p.loads++
		p.reach = max(p.reach, int(l.offset)+8)
		return
	}
	if l.base == 0 {
		p.shifts = append(p.shifts, pl)
		return
	}
	for i := range p.groups {
		if p.groups[i].base == l.base {
			p.groups[i].loads = append(p.groups[i].loads, pl)
			return
		}
	}
	p.groups = append(p.groups, planGroup{l.base, []planLoad{pl}})
}

// mappedIPv4 is what goes before an IPv4 address in the low half of the
// IPv4-mapped IPv6 address.
const mappedIPv4 = 0xffff << 32

// Field returns the field that column i reads, false if the Template has none
// for it.
func (p *Plan) Field(i int) (int, bool) { return p.fields[i], p.fields[i] >= 0 }

// Width returns how many slots a row must have.
func (p *Plan) Width() int { return p.width }

// Read reads the columns from r, a record of the Plan's Template, into row. It
// writes nothing to the slots of columns that the Template has not, and may leave
// the high half of an IPv4 address as it was, so clear a row before it is used
// with another Plan. It allocates nothing.
func (p *Plan) Read(r Record, row []uint64) {
	if p.loads > 0 {
		_, _ = r.octets[p.reach-1], row[p.width-1] // or it panics
		readPairs(p.pairs, &r.octets[0], &row[0])
	}
	for i := range p.shifts {
		row[p.shifts[i].slot] = p.shifts[i].read(r.octets, 0)
	}
	if p.rest {
		p.readRest(r, row)
	}
}

// ReadRows reads the columns from records of s, a Data Set of the Plan's
// Template, as Read does from one: into rows, of stride slots each, from record
// number from on, as many as there are and rows has room for. It returns how
// many that were. They are read column by column, which takes half the time.
//
// It returns 0 where the Template has fields of variable length, or records of
// less than eight octets: these are for Read.
func (p *Plan) ReadRows(s *DataSet, from int, rows []uint64, stride int) int {
	if !p.together {
		return 0
	}
	size := s.Template.minLength
	n := min(len(s.octets)/size-from, len(rows)/stride)
	if n <= 0 {
		return 0
	}
	records, rows := s.octets[from*size:(from+n)*size], rows[:n*stride]
	if p.loads > 0 {
		_, _ = records[:size][p.reach-1], rows[:stride][p.width-1] // or it panics
		for i := range p.loads {
			p.pairs[i/2][i%2].column(&records[0], size, &rows[0], stride, n)
		}
	}
	for i := range p.shifts {
		for record, row := records, rows; len(row) > 0; record, row = record[size:], row[stride:] {
			row[p.shifts[i].slot] = p.shifts[i].read(record, 0)
		}
	}
	for _, c := range p.converts {
		for row := rows; len(row) > 0; row = row[stride:] {
			c.convert(row)
		}
	}
	return n
}

func (l *planLoad) read(b []byte, base int) uint64 {
	return binary.BigEndian.Uint64(b[base+int(l.offset):])>>(l.shift&63)&l.mask | l.or
}

func (p *Plan) readRest(r Record, row []uint64) {
	for i := range p.groups {
		g := &p.groups[i]
		base := r.base(g.base)
		for j := range g.loads {
			row[g.loads[j].slot] = g.loads[j].read(r.octets, base)
		}
	}
	for i := range p.scans {
		p.scans[i].read(r, row)
	}
	for _, c := range p.converts {
		c.convert(row)
	}
}

func (c convert) convert(row []uint64) {
	if c.typ == TypeDateTimeSeconds {
		row[c.slot] *= 1000
	} else {
		row[c.slot] = ntpMilli(c.typ, row[c.slot])
	}
}

func (s *planScan) read(r Record, row []uint64) {
	b := r.value(s.place)
	switch s.form {
	case Number:
		row[s.slot] = unsigned(b)
	case UnixMilli:
		ms, _ := unixMilli(s.place.typ, b)
		row[s.slot] = uint64(ms)
	case Address:
		row[s.slot], row[s.slot+1] = 0, 0
		switch len(b) {
		case 4:
			row[s.slot+1] = mappedIPv4 | uint64(binary.BigEndian.Uint32(b))
		case 16:
			row[s.slot] = binary.BigEndian.Uint64(b)
			row[s.slot+1] = binary.BigEndian.Uint64(b[8:])
		}
	}
}

// Addr returns the address in the two slots of an Address column; an IPv4
// address as such.
func Addr(high, low uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], high)
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b).Unmap()
}
