package ipfix

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFull says that a record has no room in the Message under construction:
// Flush it and add the record again.
var ErrFull = errors.New("message is full")

// An Encoder builds the Messages of one Observation Domain, one after the
// other. Records of one Template that are added in a row share a Set. It
// numbers Messages by the Data Records in them (RFC 7011, Section 3.1). It
// belongs to one goroutine.
type Encoder struct {
	// Padding aligns Sets to 4 octets, where what is added stays shorter than
	// any record of the Set (RFC 7011, Section 3.3.1).
	Padding bool

	domain   uint32
	max      int
	sequence uint32

	b         []byte // the Message so far; empty if nothing was added
	set       int    // offset of the open Set; 0 for none
	minRecord int    // the shortest record that the open Set may hold
	records   uint32 // Data Records in b
}

// NewEncoder returns an Encoder for Messages of at most maxLength octets; 0
// means MaxMessage.
func NewEncoder(domain uint32, maxLength int) *Encoder {
	if maxLength <= 0 || maxLength > MaxMessage {
		maxLength = MaxMessage
	}
	return &Encoder{domain: domain, max: maxLength}
}

// AddTemplate adds the Template Record or Options Template Record of t. Its
// errors match ErrFull, or ErrLength if no Message can hold it.
func (e *Encoder) AddTemplate(t *Template) error {
	id, header := uint16(templateSet), templateHeaderLength
	if t.Scope > 0 {
		id, header = optionsTemplateSet, optionsTemplateHeaderLength
	}
	if err := e.open(id, header+len(t.wire), withdrawalLength); err != nil {
		return err
	}
	e.b = t.Append(e.b)
	return nil
}

// Withdraw adds the Template Withdrawal of t, which must not be sent over UDP
// (RFC 7011, Section 8.4). Its error matches ErrFull.
func (e *Encoder) Withdraw(t *Template) error {
	return e.withdraw(t.ID, t.Scope > 0)
}

// WithdrawAll adds the withdrawal of all Templates, or of all Options
// Templates, of the Observation Domain, which must not be sent over UDP. Its
// error matches ErrFull.
func (e *Encoder) WithdrawAll(options bool) error {
	if options {
		return e.withdraw(optionsTemplateSet, true)
	}
	return e.withdraw(templateSet, false)
}

func (e *Encoder) withdraw(id uint16, options bool) error {
	set := uint16(templateSet)
	if options {
		set = optionsTemplateSet
	}
	if err := e.open(set, withdrawalLength, withdrawalLength); err != nil {
		return err
	}
	e.b = binary.BigEndian.AppendUint16(e.b, id)
	e.b = binary.BigEndian.AppendUint16(e.b, 0)
	return nil
}

// AppendRecord adds a Data Record of t given as its octets. Its errors match
// ErrFull, or ErrLength if the octets are no record of t or no Message can
// hold it.
func (e *Encoder) AppendRecord(t *Template, record []byte) error {
	n := t.scan(record, nil)
	if n != len(record) {
		return fmt.Errorf("ipfix: %d octets as a record of template %d: %w", len(record), t.ID, ErrLength)
	}
	if err := e.open(t.ID, n, t.minLength); err != nil {
		return err
	}
	e.b = append(e.b, record...)
	e.records++
	return nil
}

// AddRecord adds a Data Record of t made of one value for each field, as
// Template.AppendRecord takes them. Its errors match those of it and of
// Encoder.AppendRecord.
func (e *Encoder) AddRecord(t *Template, values ...any) error {
	record, err := t.AppendRecord(nil, values...)
	if err != nil {
		return err
	}
	return e.AppendRecord(t, record)
}

// open makes room for n octets in a Set of that ID.
func (e *Encoder) open(id uint16, n, minRecord int) error {
	const overhead = HeaderLength + setHeaderLength
	if overhead+n > e.max {
		return fmt.Errorf("ipfix: %d octets in a message of at most %d: %w", n, e.max, ErrLength)
	}
	if len(e.b) == 0 {
		e.b = Header{Domain: e.domain}.Append(e.b)
	}
	if e.set != 0 && binary.BigEndian.Uint16(e.b[e.set:]) == id {
		if len(e.b)+n > e.max {
			return ErrFull
		}
		return nil
	}
	if len(e.b)+e.padding()+setHeaderLength+n > e.max {
		return ErrFull
	}
	e.close()
	e.set, e.minRecord = len(e.b), minRecord
	e.b = binary.BigEndian.AppendUint16(e.b, id)
	e.b = binary.BigEndian.AppendUint16(e.b, 0)
	return nil
}

// padding returns the octets that pad the open Set.
func (e *Encoder) padding() int {
	n := -(len(e.b) - e.set) & 3
	if !e.Padding || e.set == 0 || n >= e.minRecord || len(e.b)+n > e.max {
		return 0
	}
	return n
}

// close ends the open Set, if any.
func (e *Encoder) close() {
	if e.set == 0 {
		return
	}
	e.b = append(e.b, make([]byte, e.padding())...)
	binary.BigEndian.PutUint16(e.b[e.set+2:], uint16(len(e.b)-e.set))
	e.set = 0
}

// Len returns the octets of the Message so far, 0 if nothing was added.
func (e *Encoder) Len() int { return len(e.b) }

// Records returns the Data Records in the Message so far.
func (e *Encoder) Records() int { return int(e.records) }

// Sequence returns the number of the next Message: the Data Records of all
// those before, modulo 2^32.
func (e *Encoder) Sequence() uint32 { return e.sequence }

// Flush ends the Message and returns it, nil if nothing was added. exportTime
// is in Unix seconds. The Message is valid until the next call of any method.
func (e *Encoder) Flush(exportTime uint32) []byte {
	if len(e.b) == 0 {
		return nil
	}
	e.close()
	msg := e.b
	Header{Length: uint16(len(msg)), ExportTime: exportTime, Sequence: e.sequence, Domain: e.domain}.Append(msg[:0])
	e.sequence += e.records
	e.b, e.records = e.b[:0], 0
	return msg
}
