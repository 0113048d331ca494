package asm

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
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

// An instanceKey names a spool of an exporter. Whoever names the instance of
// another exporter gets one of his own.
type instanceKey struct {
	exporter string
	instance ack.Instance
}

// An instance is what is known of the Messages of one spool.
type instance struct {
	key    instanceKey
	used   uint64 // the latest journal position that it came in
	floor  uint64 // of positions before it nothing is known any more
	chunks map[uint64]*positions
	dirty  bool
}

// positions are slots of Messages whose positions follow each other. A slot
// holds what tells one Message of a position from another, shifted left by
// one; or, with its lowest bit set, the interval in which the Message was told
// to be given up, in Unix seconds; or 0: it has not come.
type positions struct {
	slots [chunkPositions]uint64
	dirty bool
}

// A novelty says what the Identity of the Message at hand makes of it.
type novelty uint8

const (
	unidentified novelty = iota // nothing is known: records go by their own identities
	fresh                       // this Message is new; its records may have come in another
	resent                      // its records were here
)

// An identified is the Message at hand, while it is one of acknowledged
// export.
type identified struct {
	novelty  novelty
	instance *instance
	position uint64
	digest   uint64
	records  uint64 // Data Records so far, the Identity among them
}

// spools are the instances of all exporters.
type spools struct {
	byKey map[instanceKey]*instance
	count map[string]int // by exporter
	gone  []acct.State   // to be deleted
}

func newSpools() spools {
	return spools{byKey: make(map[instanceKey]*instance), count: make(map[string]int)}
}

// of returns the instance of key, which may be made at the cost of the one
// that was used least recently.
func (s *spools) of(key instanceKey) *instance {
	i := s.byKey[key]
	if i != nil {
		return i
	}
	if s.count[key.exporter] >= maxInstances {
		s.forget(func(k instanceKey) bool { return k.exporter == key.exporter })
	} else if len(s.byKey) >= maxAll {
		s.forget(func(instanceKey) bool { return true })
	}
	i = &instance{key: key, chunks: make(map[uint64]*positions)}
	s.byKey[key] = i
	s.count[key.exporter]++
	return i
}

// forget drops the least recently used of some instances.
func (s *spools) forget(of func(instanceKey) bool) {
	var oldest *instance
	for k, i := range s.byKey {
		if of(k) && (oldest == nil || i.used < oldest.used) {
			oldest = i
		}
	}
	for n := range oldest.chunks {
		s.gone = append(s.gone, acct.State{Kind: statePositions, Key: oldest.key.chunk(n)})
	}
	s.gone = append(s.gone, acct.State{Kind: statePositions, Key: oldest.key.String()})
	delete(s.byKey, oldest.key)
	if s.count[oldest.key.exporter]--; s.count[oldest.key.exporter] == 0 {
		delete(s.count, oldest.key.exporter)
	}
}

// slot returns where a position is noted, nil if it is below the floor. With
// room false it is also nil where nothing is noted yet.
func (s *spools) slot(i *instance, position uint64, room bool) *uint64 {
	if position < i.floor {
		return nil
	}
	n := position / chunkPositions
	c := i.chunks[n]
	if c == nil {
		if !room {
			return nil
		}
		if len(i.chunks) >= maxChunks {
			oldest := n
			for k := range i.chunks {
				oldest = min(oldest, k)
			}
			i.floor, i.dirty = (oldest+1)*chunkPositions, true
			if oldest == n {
				return nil
			}
			delete(i.chunks, oldest)
			s.gone = append(s.gone, acct.State{Kind: statePositions, Key: i.key.chunk(oldest)})
		}
		c = &positions{}
		i.chunks[n] = c
	}
	return &c.slots[position%chunkPositions]
}

// set notes a position.
func (s *spools) set(i *instance, position, value uint64) {
	if slot := s.slot(i, position, true); slot != nil {
		*slot = value
		i.chunks[position/chunkPositions].dirty = true
	}
}

const givenUp = 1 // the lowest bit of a slot

// acknowledgement takes in the records of acknowledged export in set.
func (m *Module) acknowledgement(l *ack.Layout, set *ipfix.DataSet, d *domain) {
	for n := 0; ; n++ {
		r, ok := set.Next()
		if !ok {
			return
		}
		switch {
		case l.Kind == ack.KindIdentity && n == 0 && set.Offset == ipfix.HeaderLength:
			m.identify(l.Identity(r), d)
		case l.Kind == ack.KindForwarded:
			m.forwarded(l.Forwarded(r), d)
		case l.Kind == ack.KindGivenUp && m.decoder.identified.novelty == fresh:
			m.giveUp(l.GivenUp(r), d)
		}
	}
}

// identify finds out whether the Message at hand was here.
func (m *Module) identify(id ack.Identity, d *domain) {
	c := &m.decoder
	i := m.spools.of(instanceKey{d.key.Exporter, id.Instance})
	i.used, i.dirty = c.position, true
	c.passing = id.Instance
	c.hash, c.hashed = d.messages.Sum(ack.Body(c.message)), true // the same in every sending
	c.scratch = c.hash.Append(c.scratch[:0])
	c.identified = identified{instance: i, position: id.Position, records: c.identified.records, digest: max(binary.LittleEndian.Uint64(c.scratch)&^givenUp, 2)}
	if id.Position < i.floor {
		m.stats.ForgottenPositions++
		return // it may have been here; its records are asked
	}
	c.identified.novelty = fresh
	if slot := m.spools.slot(i, id.Position, false); slot != nil && *slot != 0 && *slot&givenUp == 0 {
		if *slot == c.identified.digest {
			c.identified.novelty = resent
			m.stats.ResentMessages++
			return
		}
		// A spool that was copied or restored, or an exporter that is wrong.
		c.identified.novelty = unidentified
		c.identified.instance = nil
		m.stats.PositionConflicts++
		m.logs.warn(m.log, "two different messages have one position of one spool; their records are told apart by themselves", d.key, 0,
			"instance", id.Instance, "position", id.Position)
	}
}

// identifiedDone notes the Message at hand, all of which was decoded.
func (m *Module) identifiedDone(d *domain) {
	c := &m.decoder.identified
	if c.novelty == resent || c.instance == nil {
		return
	}
	if slot := m.spools.slot(c.instance, c.position, false); slot != nil && *slot&givenUp != 0 {
		key := d.key
		key.Interval = int64(*slot >> 1)
		m.ledger.row(key).LostFound += c.records - 1
	}
	m.spools.set(c.instance, c.position, c.digest)
}

// giveUp books what an exporter had no room to keep.
func (m *Module) giveUp(g ack.GivenUp, d *domain) {
	if g.Last < g.First || g.Records > acct.MaxOctets {
		return
	}
	row := m.row(d)
	if g.First == g.Last { // it may have come, or been told before
		i := m.decoder.identified.instance
		switch slot := m.spools.slot(i, g.First, true); {
		case slot == nil:
			row.LostSuspect += g.Records
		case *slot != 0:
			return
		default:
			m.spools.set(i, g.First, uint64(row.Interval)<<1|givenUp)
		}
	}
	row.Lost += g.Records
	m.stats.GivenUpRecords += g.Records
}

// String returns the key of the state of the instance itself.
func (k instanceKey) String() string { return hex.EncodeToString(k.instance[:]) + "//" + k.exporter }

// chunk returns the key of the state of a chunk.
func (k instanceKey) chunk(n uint64) string {
	return hex.EncodeToString(k.instance[:]) + "/" + strconv.FormatUint(n, 10) + "/" + k.exporter
}

// positionsVersion is the first octet of both encodings.
const positionsVersion = 1

// putPositions hands out what of the spools changed.
func (m *Module) putPositions(put func(kind, key string, value []byte)) {
	slices.SortFunc(m.spools.gone, func(a, b acct.State) int { return strings.Compare(a.Key, b.Key) })
	for _, s := range m.spools.gone {
		put(s.Kind, s.Key, nil)
	}
	m.spools.gone = m.spools.gone[:0]
	changed := slices.DeleteFunc(slices.Collect(maps.Values(m.spools.byKey)), func(i *instance) bool { return !i.dirty })
	slices.SortFunc(changed, func(a, b *instance) int { return strings.Compare(a.key.String(), b.key.String()) })
	for _, i := range changed {
		i.dirty = false
		b := []byte{positionsVersion}
		b = binary.AppendUvarint(b, i.used)
		put(statePositions, i.key.String(), binary.AppendUvarint(b, i.floor))
		for _, n := range slices.Sorted(maps.Keys(i.chunks)) {
			c := i.chunks[n]
			if !c.dirty {
				continue
			}
			c.dirty = false
			b := make([]byte, 0, 1+8*chunkPositions)
			b = append(b, positionsVersion)
			for _, v := range c.slots {
				b = binary.LittleEndian.AppendUint64(b, v)
			}
			put(statePositions, i.key.chunk(n), b)
		}
	}
}

// restorePositions takes in one state that putPositions handed out.
func (m *Module) restorePositions(key string, value []byte) error {
	corrupt := fmt.Errorf("asm: positions of %q: %w", key, ErrCorrupt)
	id, rest, _ := strings.Cut(key, "/")
	number, exporter, ok := strings.Cut(rest, "/")
	k := instanceKey{exporter: exporter}
	if n, err := hex.Decode(k.instance[:], []byte(id[:min(len(id), 32)])); err != nil || n != 16 || len(id) != 32 || !ok || len(value) == 0 || value[0] != positionsVersion {
		return corrupt
	}
	i := m.spools.byKey[k]
	if i == nil {
		i = &instance{key: k, chunks: make(map[uint64]*positions)}
		m.spools.byKey[k] = i
		m.spools.count[exporter]++
	}
	if number == "" {
		r := octets.NewReader(value[1:])
		i.used, i.floor = r.Uvarint(), r.Uvarint()
		return r.Close()
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || len(value) != 1+8*chunkPositions {
		return corrupt
	}
	c := &positions{}
	for j := range c.slots {
		c.slots[j] = binary.LittleEndian.Uint64(value[1+8*j:])
	}
	i.chunks[n] = c
	return nil
}
