package spool

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"tollbridge/asm/acct"
)

// SQLite does not check what it reads. What could change a total unseen bears
// a CRC-32C of itself and of its place: outbox records and what
// became of them, sessions, state, suspended flows, identities, the
// checkpoint's numbers and CDRs. A row of the ledger is added to without being
// read, so its checksum can be added to as well.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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

// settledSum is that of a row of table settled.
func settledSum(r *settledRange) int64 {
	s := new(summer).number(r.first).number(r.last).number(uint64(r.state)).number(uint64(r.result))
	return int64(s.text(r.peer).text(r.reason).number(uint64(r.at)).crc)
}

// ledgerBits of a checksum in the ledger: two of them can be added in SQLite,
// where an integer that overflows becomes a float.
const ledgerBits = 1<<62 - 1

// ledgerSum is the checksum of what a row's sums are, or of what is added to
// them: the sum, modulo 2^62, of each times a number of its column that is odd,
// so that no change of one sum goes unseen.
func ledgerSum(a *amount) int64 {
	var sum uint64
	for i, c := range ledgerColumns {
		sum += columnWeight(i) * uint64(integer(*c.of(a)))
	}
	return int64(sum & ledgerBits)
}

// columnWeight is step i of SplitMix64, made odd.
func columnWeight(i int) uint64 {
	z := (uint64(i) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31 | 1
}

// ledgerPlace is what the key of a row adds to its checksum.
func ledgerPlace(k acct.LedgerKey) int64 {
	return int64(new(summer).text(k.Exporter).number(uint64(k.Domain)).number(uint64(k.Interval)).crc)
}

// damage returns what is wrong with a row of the ledger that has a checksum. A
// sum that has reached its bound is not what was added any more: such a row
// proves nothing.
func (a *amount) damage(sum sql.NullInt64) error {
	if !sum.Valid || sum.Int64 == (ledgerSum(a)+ledgerPlace(a.LedgerKey))&ledgerBits {
		return nil
	}
	for _, c := range ledgerColumns {
		if *c.of(a) == math.MaxInt64 {
			return nil
		}
	}
	return fmt.Errorf("its row of the ledger: %w", ErrDamaged)
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
