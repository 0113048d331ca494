package sim

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"tollbridge/asm/acct"
)

// A tape is the journal on the disk in memory: groups of entries one after
// the other, each
//
//	uint64  position of the first entry
//	uint32  number of entries
//	uint32  octets of the entries
//	entries octet kind, int64 time, uint64 session, uint32 length, data
//	uint32  checksum of all of the above
//
// What was written and not synced may be lost in a crash, or be there in part,
// with garbage behind.
type tape struct {
	octets []byte
	synced int
	groups []tapeGroup // durable, ascending, that are not trimmed
	end    uint64      // the last position ever durable
}

type tapeGroup struct {
	first, last uint64
	entries     []acct.Entry
}

const tapeHeader, tapeEntry, tapeTrailer = 16, 21, 4

func (t *tape) write(group []acct.Entry) {
	start := len(t.octets)
	b := binary.BigEndian.AppendUint64(t.octets, group[0].Position)
	b = binary.BigEndian.AppendUint32(b, uint32(len(group)))
	b = append(b, 0, 0, 0, 0)
	for _, e := range group {
		b = append(b, byte(e.Kind))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
		b = binary.BigEndian.AppendUint64(b, e.Session)
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	binary.BigEndian.PutUint32(b[start+12:], uint32(len(b)-start-tapeHeader))
	t.octets = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

func (t *tape) sync() {
	t.read()
	if t.synced != len(t.octets) {
		panic("sim: internal error: what was written does not read")
	}
}

// read takes in the groups behind what is synced, up to one that is not
// whole.
func (t *tape) read() {
	for b := t.octets[t.synced:]; len(b) >= tapeHeader; b = t.octets[t.synced:] {
		n := int(binary.BigEndian.Uint32(b[12:]))
		if n > len(b)-tapeHeader-tapeTrailer {
			return
		}
		body := b[:tapeHeader+n]
		g := tapeGroup{first: binary.BigEndian.Uint64(b)}
		count := binary.BigEndian.Uint32(b[8:])
		if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(b[len(body):]) {
			return
		}
		g.last = g.first + uint64(count) - 1
		for at, p := tapeHeader, g.first; p <= g.last; p++ {
			e := acct.Entry{
				Position: p, Kind: acct.EntryKind(body[at]), Time: int64(binary.BigEndian.Uint64(body[at+1:])),
				Session: binary.BigEndian.Uint64(body[at+9:]),
			}
			data := at + tapeEntry
			at = data + int(binary.BigEndian.Uint32(body[at+17:]))
			e.Data = body[data:at:at]
			g.entries = append(g.entries, e)
		}
		t.groups = append(t.groups, g)
		t.end = g.last
		t.synced += len(body) + tapeTrailer
	}
}

// crash keeps what is synced and, of the rest, as much as rng says.
func (t *tape) crash(rng randomness) {
	rest := len(t.octets) - t.synced
	if rest == 0 {
		return
	}
	keep := rng.IntN(rest + 1)
	if rng.IntN(3) == 0 {
		keep = rest
	}
	t.octets = slices.Clip(t.octets[:t.synced+keep])
	if keep < rest && rng.IntN(2) == 0 {
		for range rng.IntN(64) {
			t.octets = append(t.octets, byte(rng.Uint32()))
		}
	}
	t.read()
	t.octets = slices.Clip(t.octets[:t.synced])
}

// find returns the index of the group that holds position, or of the next.
func (t *tape) find(position uint64) int {
	i, _ := slices.BinarySearchFunc(t.groups, position, func(g tapeGroup, p uint64) int {
		if g.last < p {
			return -1
		}
		return 1
	})
	return i
}

func (t *tape) entry(position uint64) (acct.Entry, error) {
	if i := t.find(position); i < len(t.groups) && t.groups[i].first <= position {
		g := &t.groups[i]
		return g.entries[position-g.first], nil
	}
	return acct.Entry{}, fmt.Errorf("sim: position %d: %w", position, acct.ErrNoEntry)
}

// after returns up to max entries behind a position.
func (t *tape) after(position uint64, max int) []acct.Entry {
	var out []acct.Entry
	for i := t.find(position + 1); i < len(t.groups) && len(out) < max; i++ {
		for _, e := range t.groups[i].entries {
			if e.Position > position && len(out) < max {
				out = append(out, e)
			}
		}
	}
	return out
}

// trim drops the groups that are all below a position.
func (t *tape) trim(below uint64) {
	t.groups = slices.Clone(t.groups[t.find(below):])
}
