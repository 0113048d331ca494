package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"tollbridge/asm/acct"
)

// SQLite does not check what it reads. What could change a total unseen bears
// a CRC-32C of itself and of its place: journal groups, outbox records,
// sessions, state, suspended flows, identities, the checkpoint's numbers and
// CDRs. Ledger and table settled bear none, as each contradicts the other in
// the books when it is damaged.

// A summer sums up the fields of a row.
type summer struct{ crc uint32 }

func (s *summer) octets(b []byte) *summer {
	s.number(uint64(len(b)))
	s.crc = crc32.Update(s.crc, castagnoli, b)
	return s
}

func (s *summer) text(t string) *summer { return s.octets([]byte(t)) }

func (s *summer) number(n uint64) *summer {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	s.crc = crc32.Update(s.crc, castagnoli, b[:])
	return s
}

// sumOf returns the checksum of octets that belong to a number.
func sumOf(place uint64, b []byte) uint32 { return new(summer).number(place).octets(b).crc }

// stateSum is that of a row of table state.
func stateSum(st *acct.State) int64 {
	return int64(new(summer).text(st.Kind).text(st.Key).octets(st.Value).crc)
}

// suspendedSum is that of a row of table suspended.
func suspendedSum(r *acct.Suspended) int64 {
	s := new(summer).number(r.ID).text(r.Key.Exporter).number(uint64(r.Key.Domain)).number(uint64(r.Key.Interval))
	s.number(r.Count.Records).number(r.Count.Octets).number(r.Count.Packets)
	s.text(r.Reason).number(uint64(r.Since)).number(uint64(r.FlowEnd)).number(r.Position)
	return int64(s.octets(r.Flow).crc)
}

// cdrSum is that of what Totals reads of a CDR.
func cdrSum(c *acct.CDR) int64 {
	s := new(summer).text(c.SessionID).number(uint64(c.Number)).number(uint64(c.Type)).text(c.User)
	for _, n := range []uint64{c.Usage.InputOctets, c.Usage.OutputOctets, c.Usage.InputPackets, c.Usage.OutputPackets} {
		s.number(uint64(integer(n)))
	}
	if c.Corrects != nil && c.Corrects.Credit {
		s.number(1)
	}
	return int64(s.crc)
}

// sealIdentities appends a checksum to identities of a bucket.
func sealIdentities(bucket int64, data []byte) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, len(data)+4), data...), sumOf(uint64(bucket), data))
}

// openIdentities takes the checksum off.
func openIdentities(bucket int64, data []byte) ([]byte, error) {
	if n := len(data) - 4; n >= 0 && sumOf(uint64(bucket), data[:n]) == binary.BigEndian.Uint32(data[n:]) {
		return data[:n], nil
	}
	return nil, fmt.Errorf("identities of bucket %d, %d octets: %w", bucket, len(data), ErrDamaged)
}
