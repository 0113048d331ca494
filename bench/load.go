package main

import (
	"encoding/binary"
	"time"

	"tollbridge/ipfix"
)

const (
	recordsPerMessage = 24
	users             = 100_000
	farAddresses      = 1 << 16
)

// accounting are the 13 fields of a record, 55 octets.
var accounting = []ipfix.FieldSpecifier{
	{ID: ipfix.FlowStartMilliseconds, Length: 8},
	{ID: ipfix.FlowEndMilliseconds, Length: 8},
	{ID: ipfix.SourceIPv4Address, Length: 4},
	{ID: ipfix.DestinationIPv4Address, Length: 4},
	{ID: ipfix.SourceTransportPort, Length: 2},
	{ID: ipfix.DestinationTransportPort, Length: 2},
	{ID: ipfix.ProtocolIdentifier, Length: 1},
	{ID: ipfix.IpDiffServCodePoint, Length: 1},
	{ID: ipfix.IngressInterface, Length: 4},
	{ID: ipfix.EgressInterface, Length: 4},
	{ID: ipfix.OctetDeltaCount, Length: 8},
	{ID: ipfix.PacketDeltaCount, Length: 8},
	{ID: ipfix.FlowEndReason, Length: 1},
}

const recordLength = 55

// messageLength is that of a Message with 24 records in one Set.
const messageLength = ipfix.HeaderLength + 4 + recordsPerMessage*recordLength

// A load makes Messages of records that all differ: flows of 100,000 users,
// half of them from and half to the user, that end in rising order from the
// moment when the load was made.
type load struct {
	began    uint64 // Unix milliseconds
	perMilli uint64 // records that end in a millisecond
	n        uint64 // records so far
}

// newLoad returns a load whose records end at the given rate per second.
func newLoad(rate int) *load {
	return &load{began: uint64(time.Now().UnixMilli()), perMilli: max(1, uint64(rate)/1000)}
}

// template is a Message with the records' Template.
func (l *load) template() ([]byte, error) {
	t, err := ipfix.NewTemplate(256, accounting...)
	if err != nil {
		return nil, err
	}
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(t); err != nil {
		return nil, err
	}
	return e.Flush(uint32(l.began / 1000)), nil
}

// message writes the next Message into b, which holds messageLength octets.
func (l *load) message(b []byte) {
	be := binary.BigEndian
	be.PutUint16(b, ipfix.Version)
	be.PutUint16(b[2:], messageLength)
	be.PutUint32(b[4:], uint32((l.began+l.n/l.perMilli)/1000))
	be.PutUint32(b[8:], uint32(l.n))
	be.PutUint32(b[12:], 1)
	be.PutUint16(b[16:], 256)
	be.PutUint16(b[18:], messageLength-ipfix.HeaderLength)
	for r := b[20:]; len(r) > 0; r = r[recordLength:] {
		i := l.n
		end := l.began + i/l.perMilli
		be.PutUint64(r, end-1000-i%3000)
		be.PutUint64(r[8:], end)
		user := userAddress(uint32(i * 2654435761 % users))
		far := 198<<24 | 18<<16 | uint32(i%farAddresses)
		from, to := user, far
		if i%2 == 1 {
			from, to = far, user
		}
		be.PutUint32(r[16:], from)
		be.PutUint32(r[20:], to)
		be.PutUint16(r[24:], uint16(1024+i%60000))
		be.PutUint16(r[26:], 443)
		r[28], r[29] = 6, 0
		be.PutUint32(r[30:], 1)
		be.PutUint32(r[34:], 2)
		be.PutUint64(r[38:], 64+i%100_000)
		be.PutUint64(r[46:], 1+i%100)
		r[54] = 1
		l.n++
	}
}

// userAddress returns the address of a user.
func userAddress(user uint32) uint32 { return 10<<24 + user }
