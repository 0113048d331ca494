package dedup

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// A RecentConfig sets up a Recent.
type RecentConfig struct {
	// Length is how long after its arrival an identity is remembered, at
	// least; at most it is twice that. 0 or less means 1m.
	Length time.Duration

	// MaxIdentities bounds memory, at about 30 octets each; 0 or less means
	// 4 Mi. Where more arrive, the older half is forgotten early.
	MaxIdentities int
}

// A Recent remembers the identities of Messages for a short time after they
// arrived. A copy arrives at another time than the first did, so a Recent has
// no buckets to choose from but two generations, and looks into both.
type Recent struct {
	length int64 // milliseconds
	max    int   // of a generation

	generation int64    // number of the current one; those before the first are empty
	until      int64    // the current generation takes arrivals before this, Unix milliseconds
	tables     [2]table // of generation and generation-1 at their number modulo 2

	pool  pool
	saved []byte // what Delta handed out last
	stats Stats
}

// NewRecent returns a Recent that has seen nothing.
func NewRecent(cfg RecentConfig) *Recent {
	r := &Recent{
		length:     ceil(int64(orDefault(cfg.Length, time.Minute)), int64(time.Millisecond)),
		max:        cfg.MaxIdentities / 2,
		generation: 1,
	}
	if cfg.MaxIdentities <= 0 {
		r.max = 2 << 20
	}
	r.max = max(1, min(r.max, maxTable))
	return r
}

// Add says whether id, of a Message that arrived in Unix milliseconds, was
// added before, and remembers it: New or Duplicate. Arrivals before an earlier
// one count as that.
func (r *Recent) Add(id Identity, arrival int64) Verdict {
	arrival = max(-maxTime, min(arrival, maxTime))
	switch late := arrival - r.until; {
	case late >= r.length: // both generations are too old
		r.next(arrival + r.length)
		r.next(arrival + r.length)
	case late >= 0:
		r.next(r.until + r.length)
	}
	cur := r.generation & 1
	if r.tables[cur^1].has(id) || !r.tables[cur].add(id, 0, &r.pool) {
		r.stats.Duplicate++
		return Duplicate
	}
	r.stats.New++
	if r.tables[cur].n >= r.max {
		r.stats.Evicted += uint64(r.tables[cur^1].n)
		r.next(arrival + r.length)
	}
	return New
}

// Has reports whether id is remembered. It does not remember it.
func (r *Recent) Has(id Identity) bool { return r.tables[0].has(id) || r.tables[1].has(id) }

// next begins a generation and forgets that before the current one.
func (r *Recent) next(until int64) {
	r.generation++
	r.until = until
	r.tables[r.generation&1].release(&r.pool)
}

// Floor returns the number of the oldest generation that is remembered.
func (r *Recent) Floor() int64 { return r.generation - 1 }

// Delta calls visit for each generation that identities were added to since
// the last call, oldest first, with its number and those identities, as
// Window.Delta does.
func (r *Recent) Delta(visit func(generation int64, data []byte)) {
	r.saved = slices.Grow(r.saved[:0], (r.tables[0].fresh()+r.tables[1].fresh())*IdentitySize)
	for g := r.generation - 1; g <= r.generation; g++ {
		t := &r.tables[g&1]
		if t.fresh() == 0 {
			continue
		}
		from := len(r.saved)
		r.saved = t.save(r.saved, t.n)
		visit(g, r.saved[from:])
	}
}

// Stats returns a snapshot of what r has counted.
func (r *Recent) Stats() Stats {
	s := r.stats
	s.Identities = r.tables[0].n + r.tables[1].n
	s.Octets = r.pool.octets()
	return s
}

// AppendBinary appends all of r but its identities, which Delta hands out.
func (r *Recent) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, recentVersion)
	b = binary.AppendUvarint(b, uint64(r.generation))
	return binary.AppendVarint(b, r.until), nil
}

// recentVersion is the first octet of an encoded Recent.
const recentVersion = 1

// UnmarshalBinary makes r, which must be as NewRecent returned it, continue
// where AppendBinary was called. Restore then brings back the identities.
// Errors match ErrCorrupt, and leave r as it was.
func (r *Recent) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != recentVersion {
		return fmt.Errorf("dedup: decode recent: version: %w", ErrCorrupt)
	}
	b = b[1:]
	generation, n := binary.Uvarint(b)
	if n <= 0 || generation == 0 || generation > maxTime {
		return fmt.Errorf("dedup: decode recent: generation: %w", ErrCorrupt)
	}
	until, m := binary.Varint(b[n:])
	if m <= 0 || n+m != len(b) || until < -2*maxTime || until > 2*maxTime {
		return fmt.Errorf("dedup: decode recent: time: %w", ErrCorrupt)
	}
	r.generation, r.until = int64(generation), until
	return nil
}

// Restore adds identities that Delta once handed out for generation, after
// UnmarshalBinary and before the first Add. Those of forgotten generations are
// skipped. Errors match ErrCorrupt, and leave r as it was.
func (r *Recent) Restore(generation int64, data []byte) error {
	switch {
	case len(data)%IdentitySize != 0:
		return fmt.Errorf("dedup: restore generation %d: %d octets are not whole identities: %w", generation, len(data), ErrCorrupt)
	case generation < 1 || generation > r.generation:
		return fmt.Errorf("dedup: restore generation %d: the newest is %d: %w", generation, r.generation, ErrCorrupt)
	case generation < r.generation-1:
		return nil
	}
	t := &r.tables[generation&1]
	for ; len(data) > 0; data = data[IdentitySize:] {
		if t.add(ParseIdentity(data), 0, &r.pool) {
			t.saved++
		}
	}
	return nil
}
