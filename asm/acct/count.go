// Package acct is the waist of Tollbridge: the accounting record, the journal
// entry it was made from, and the batch that carries a checkpoint to disk.
// Above it packages speak IPFIX, below it Diameter, and none speaks both.
package acct

import (
	"math"
	"math/bits"
)

// MaxOctets is the most that one Data Record may claim, in octets or packets.
// A larger counter is not usage but an error or an attack: the record is
// rejected, booked as one record of no octets.
const MaxOctets = 1 << 48

// A Count is an amount as the books keep it.
type Count struct {
	Records uint64 `json:"records"`
	Octets  uint64 `json:"octets"`
	Packets uint64 `json:"packets"`
}

// Plus returns c + d. A sum that would not fit a signed 64-bit integer, the
// largest that the spool stores, stays at its limit; the books then fail to
// balance, which is how such a sum is found.
func (c Count) Plus(d Count) Count {
	return Count{add(c.Records, d.Records), add(c.Octets, d.Octets), add(c.Packets, d.Packets)}
}

// Minus returns c - d, or zero where d is the larger.
func (c Count) Minus(d Count) Count {
	return Count{sub(c.Records, d.Records), sub(c.Octets, d.Octets), sub(c.Packets, d.Packets)}
}

// IsZero reports whether c counts nothing.
func (c Count) IsZero() bool { return c == Count{} }

func add(a, b uint64) uint64 {
	s, carry := bits.Add64(a, b, 0)
	if carry != 0 || s > math.MaxInt64 {
		return math.MaxInt64
	}
	return s
}

func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// A LedgerKey names a row of the ledger: an exporter, one of its Observation
// Domains, and the interval in which its data arrived.
type LedgerKey struct {
	Exporter string // configured or certificate identity; never an address and port
	Domain   uint32 // Observation Domain ID
	Interval int64  // start of the interval of arrival, Unix seconds
}

// A Share is the part of an accounting record's increment that came from one
// row of the ledger.
type Share struct {
	LedgerKey
	Count
}

// AddShare adds c to the share of key in shares, appending one if there is
// none. Shares are few: a session is rarely seen by more than two exporters
// within an interval.
func AddShare(shares []Share, key LedgerKey, c Count) []Share {
	for i := range shares {
		if shares[i].LedgerKey == key {
			shares[i].Count = shares[i].Count.Plus(c)
			return shares
		}
	}
	return append(shares, Share{key, c})
}
