package dedup

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// An Origin says where an identity was seen first, in numbers of the caller's:
// a position below 2^48 and an offset. The zero Origin is none.
type Origin uint64

// OriginAt returns the Origin of a position and an offset.
func OriginAt(position uint64, offset uint16) Origin { return Origin(position<<16 | uint64(offset)) }

// Position returns the position that o was made of.
func (o Origin) Position() uint64 { return uint64(o >> 16) }

// Offset returns the offset that o was made of.
func (o Origin) Offset() int { return int(o & math.MaxUint16) }

// begin notes that the latest identity of t, and those to come, are of o. As
// records come many to a Message, this costs little beside them.
func (t *table) begin(o Origin) {
	t.origin = o
	t.origins = append(t.origins, o)
	t.starts = append(t.starts, uint32(t.n))
}

// ordinalOf returns the ordinal of identity number n, counted from 1.
func (t *table) ordinalOf(n uint32) int {
	n--
	return int(t.pages[n/pageSlots].ordinals[n%pageSlots])
}

// originOf returns the Origin of identity number n, counted from 1.
func (t *table) originOf(n uint32) Origin {
	i, found := slices.BinarySearch(t.starts, n)
	if !found {
		if i == 0 {
			return 0
		}
		i--
	}
	return t.origins[i]
}

// saveWithOrigins appends the fresh identities up to number upTo, counted from
// 1, to b in the order they came: for each run of one Origin its length, the
// Origin and then the identities, each with its ordinal.
func (t *table) saveWithOrigins(b []byte, upTo int) []byte {
	i, found := slices.BinarySearch(t.starts, uint32(t.saved+1))
	if !found {
		i-- // the run that goes on; -1 for those without an Origin
	}
	for ; t.saved < upTo; i++ {
		end := upTo
		if i+1 < len(t.starts) {
			end = min(end, int(t.starts[i+1])-1)
		}
		var o Origin
		if i >= 0 {
			o = t.origins[i]
		}
		b = binary.AppendUvarint(b, uint64(end-t.saved))
		b = binary.AppendUvarint(b, uint64(o))
		b = slices.Grow(b, (end-t.saved)*savedSize)
		for ; t.saved < end; t.saved++ {
			pg, at := t.pages[t.saved/pageSlots], t.saved%pageSlots
			b = pg.ids[at].Append(b)
			b = binary.LittleEndian.AppendUint16(b, pg.ordinals[at])
		}
	}
	return b
}

// savedSize is what an identity takes with its ordinal, in octets.
const savedSize = IdentitySize + 2

// checkSaved returns an error unless data is what saveWithOrigins appended.
func checkSaved(data []byte) error {
	for len(data) > 0 {
		n, k := binary.Uvarint(data)
		if k <= 0 {
			return fmt.Errorf("length of a run: %w", ErrCorrupt)
		}
		_, m := binary.Uvarint(data[k:])
		if m <= 0 {
			return fmt.Errorf("origin of a run: %w", ErrCorrupt)
		}
		if data = data[k+m:]; n == 0 || n > uint64(len(data)/savedSize) {
			return fmt.Errorf("run of %d identities in %d octets: %w", n, len(data), ErrCorrupt)
		}
		data = data[n*savedSize:]
	}
	return nil
}

// savedHead reads the head of a run off data, which checkSaved found right.
func savedHead(data []byte) (n uint64, o Origin, rest []byte) {
	n, k := binary.Uvarint(data)
	v, m := binary.Uvarint(data[k:])
	return n, Origin(v), data[k+m:]
}
