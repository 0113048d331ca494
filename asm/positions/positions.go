// Package positions knows which Messages of acknowledged export have come
// (docs/acknowledged-export.md), by their positions in the spools of their
// exporters, so that one that is sent again is known before it is decoded.
package positions

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tollbridge/internal/octets"
	"tollbridge/ipfix/ack"
)

// Bounds of what acknowledged export makes us hold. An exporter has at most
// 4096 Messages under way, so what it sends again is among the latest of a
// spool's positions; a spool whose exporter was killed goes on at a position
// far behind, so its latest may lie in many chunks.
const (
	chunkPositions = 256
	maxChunks      = 128  // of an instance: at least 32,768 positions of a life
	maxInstances   = 64   // of an exporter
	maxAll         = 4096 // instances in all
)

// A key names a spool of an exporter. Whoever names the instance of another
// exporter gets one of his own.
type key struct {
	exporter string
	instance ack.Instance
}

// A Spool is what is known of the Messages of one spool.
type Spool struct {
	key    key
	used   uint64 // the latest journal position that it came in
	floor  uint64 // of positions before it nothing is known any more
	chunks map[uint64]*chunk
	dirty  bool
}

// A chunk has slots of Messages whose positions follow each other. A slot
// holds what tells one Message of a position from another, shifted left by
// one; or, with its lowest bit set, the interval in which the Message was told
// to be given up, in Unix seconds; or 0: it has not come.
type chunk struct {
	slots [chunkPositions]uint64
	dirty bool
}

const givenUp = 1 // the lowest bit of a slot

// slotOf returns what a slot holds of a Message with a digest.
func slotOf(digest uint64) uint64 { return max(digest&^givenUp, 2) }

// Seen says what is known of the Message at a position.
type Seen uint8

const (
	Never     Seen = iota // it has not come
	Same                  // it came
	Other                 // another one came at its position
	GivenUp               // the exporter told that it had no room to keep it
	Forgotten             // its position is too low to be known
)

// Look says what is known of the Message at a position, by a digest that tells
// it from others; if it was given up, in which interval, Unix seconds.
func (s *Spool) Look(position, digest uint64) (seen Seen, interval int64) {
	if position < s.floor {
		return Forgotten, 0
	}
	c := s.chunks[position/chunkPositions]
	if c == nil {
		return Never, 0
	}
	switch slot := c.slots[position%chunkPositions]; {
	case slot == 0:
		return Never, 0
	case slot&givenUp != 0:
		return GivenUp, int64(slot >> 1)
	case slot == slotOf(digest):
		return Same, 0
	}
	return Other, 0
}

// Spools are those of all exporters.
type Spools struct {
	byKey map[key]*Spool
	count map[string]int // by exporter
	gone  []string       // keys of states to be deleted
}

// NewSpools returns empty Spools.
func NewSpools() *Spools {
	return &Spools{byKey: make(map[key]*Spool), count: make(map[string]int)}
}

// Of returns a spool of an exporter, which is used by the journal's entry at a
// position. It may be made at the cost of the one that was used least recently.
func (x *Spools) Of(exporter string, instance ack.Instance, position uint64) *Spool {
	k := key{exporter, instance}
	s := x.byKey[k]
	if s == nil {
		if x.count[exporter] >= maxInstances {
			x.forget(func(k key) bool { return k.exporter == exporter })
		} else if len(x.byKey) >= maxAll {
			x.forget(func(key) bool { return true })
		}
		s = x.add(k)
	}
	s.used, s.dirty = position, true
	return s
}

func (x *Spools) add(k key) *Spool {
	s := &Spool{key: k, chunks: make(map[uint64]*chunk)}
	x.byKey[k] = s
	x.count[k.exporter]++
	return s
}

// forget drops the least recently used of some spools.
func (x *Spools) forget(of func(key) bool) {
	var oldest *Spool
	for k, s := range x.byKey {
		if of(k) && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	for n := range oldest.chunks {
		x.gone = append(x.gone, oldest.key.chunk(n))
	}
	x.gone = append(x.gone, oldest.key.String())
	delete(x.byKey, oldest.key)
	if x.count[oldest.key.exporter]--; x.count[oldest.key.exporter] == 0 {
		delete(x.count, oldest.key.exporter)
	}
}

// room returns the chunk of a position, which may be made at the cost of the
// one with the lowest positions; nil if the position is too low to be noted.
func (x *Spools) room(s *Spool, position uint64) *chunk {
	if position < s.floor {
		return nil
	}
	n := position / chunkPositions
	c := s.chunks[n]
	if c != nil {
		return c
	}
	if len(s.chunks) >= maxChunks {
		oldest := n
		for k := range s.chunks {
			oldest = min(oldest, k)
		}
		s.floor, s.dirty = (oldest+1)*chunkPositions, true
		if oldest == n {
			return nil
		}
		delete(s.chunks, oldest)
		x.gone = append(x.gone, s.key.chunk(oldest))
	}
	c = new(chunk)
	s.chunks[n] = c
	return c
}

// Came notes that the Message at a position came, with a digest.
func (x *Spools) Came(s *Spool, position, digest uint64) {
	if c := x.room(s, position); c != nil {
		c.slots[position%chunkPositions], c.dirty = slotOf(digest), true
	}
}

// GiveUp notes that the exporter told, in an interval (Unix seconds), that it
// had no room to keep the Message at a position. News is false if that came or
// was told before; known is false if that can't be known.
func (x *Spools) GiveUp(s *Spool, position uint64, interval int64) (news, known bool) {
	c := x.room(s, position)
	if c == nil {
		return true, false
	}
	slot := &c.slots[position%chunkPositions]
	if *slot != 0 {
		return false, true
	}
	*slot, c.dirty = uint64(interval)<<1|givenUp, true
	return true, true
}

// String returns the key of the state of the spool itself.
func (k key) String() string { return hex.EncodeToString(k.instance[:]) + "//" + k.exporter }

// chunk returns the key of the state of a chunk.
func (k key) chunk(n uint64) string {
	return hex.EncodeToString(k.instance[:]) + "/" + strconv.FormatUint(n, 10) + "/" + k.exporter
}

// version is the first octet of both encodings.
const version = 1

// Delta hands out what changed since the last call; a nil value deletes.
func (x *Spools) Delta(put func(key string, value []byte)) {
	slices.Sort(x.gone)
	for _, k := range x.gone {
		put(k, nil)
	}
	x.gone = x.gone[:0]
	changed := slices.DeleteFunc(slices.Collect(maps.Values(x.byKey)), func(s *Spool) bool { return !s.dirty })
	slices.SortFunc(changed, func(a, b *Spool) int { return cmp.Compare(a.key.String(), b.key.String()) })
	for _, s := range changed {
		s.dirty = false
		b := binary.AppendUvarint([]byte{version}, s.used)
		put(s.key.String(), binary.AppendUvarint(b, s.floor))
		for _, n := range slices.Sorted(maps.Keys(s.chunks)) {
			c := s.chunks[n]
			if !c.dirty {
				continue
			}
			c.dirty = false
			b := append(make([]byte, 0, 1+8*chunkPositions), version)
			for _, v := range c.slots {
				b = binary.LittleEndian.AppendUint64(b, v)
			}
			put(s.key.chunk(n), b)
		}
	}
}

// Restore takes in one state that Delta handed out. Errors match
// octets.ErrCorrupt.
func (x *Spools) Restore(name string, value []byte) error {
	corrupt := fmt.Errorf("positions: spool %q: %w", name, octets.ErrCorrupt)
	id, rest, _ := strings.Cut(name, "/")
	number, exporter, ok := strings.Cut(rest, "/")
	k := key{exporter: exporter}
	if n, err := hex.Decode(k.instance[:], []byte(id[:min(len(id), 32)])); err != nil || n != 16 || len(id) != 32 || !ok || len(value) == 0 || value[0] != version {
		return corrupt
	}
	s := x.byKey[k]
	if s == nil {
		s = x.add(k)
	}
	if number == "" {
		r := octets.NewReader(value[1:])
		s.used, s.floor = r.Uvarint(), r.Uvarint()
		return r.Close()
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || len(value) != 1+8*chunkPositions {
		return corrupt
	}
	c := new(chunk)
	for j := range c.slots {
		c.slots[j] = binary.LittleEndian.Uint64(value[1+8*j:])
	}
	s.chunks[n] = c
	return nil
}
