package charges

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/internal/octets"
)

// doubtsKey names the state of the doubts.
const doubtsKey = "doubts"

// Delta hands out what changed since the last call; a nil value deletes.
func (x *Memory) Delta(put func(key string, value []byte)) {
	fresh := make(map[string][]byte)
	for _, g := range x.segments {
		if len(g.data) > g.stored {
			fresh[g.key(g.stored)] = g.data[g.stored:len(g.data):len(g.data)]
			g.pieces = append(g.pieces, g.stored)
			g.stored = len(g.data)
		}
	}
	for _, key := range x.stale {
		if fresh[key] == nil {
			put(key, nil)
		}
	}
	x.stale = x.stale[:0]
	for _, key := range slices.Sorted(maps.Keys(fresh)) {
		put(key, fresh[key])
	}
	if !x.changed {
		return
	}
	x.changed = false
	if len(x.doubts) == 0 {
		put(doubtsKey, nil)
		return
	}
	b := binary.AppendUvarint(nil, uint64(len(x.doubts)))
	for _, d := range x.doubts {
		b = octets.AppendString(b, d.VRF)
		b = octets.AppendPrefix(b, d.Prefix)
		b = binary.AppendVarint(b, d.From)
		b = binary.AppendVarint(b, d.Until)
	}
	put(doubtsKey, b)
}

// Restore takes in what Delta handed out and did not delete, in any order, at a
// time in Unix milliseconds. What is damaged is forgotten, and told of: it is
// but for corrections, and accounting goes on without.
func (x *Memory) Restore(state []acct.State, now int64) (damaged []error) {
	type stored struct {
		key    string
		number uint64
		at     int
		value  []byte
	}
	lose := func(err error, keys ...string) {
		x.stale = append(x.stale, keys...)
		x.lost = max(x.lost, now)
		damaged = append(damaged, fmt.Errorf("%s: %w: it is forgotten, and users.correct reaches less far back", keys[0], err))
	}
	var pieces []stored
	for _, s := range state {
		if s.Key == doubtsKey {
			if err := x.restoreDoubts(s.Value); err != nil {
				damaged = append(damaged, fmt.Errorf("%s: %w: all that is remembered is looked through", s.Key, err))
			}
			continue
		}
		number, at, _ := strings.Cut(s.Key, "/")
		p := stored{key: s.Key, value: s.Value}
		var err1, err2 error
		p.number, err1 = strconv.ParseUint(number, 10, 64)
		p.at, err2 = strconv.Atoi(at)
		if err := cmp.Or(err1, err2); err != nil {
			lose(err, s.Key)
			continue
		}
		pieces = append(pieces, p)
	}
	slices.SortFunc(pieces, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.at, b.at))
	})
	for len(pieces) > 0 {
		g := &segment{number: pieces[0].number}
		var keys []string
		var err error
		for len(pieces) > 0 && pieces[0].number == g.number {
			p := pieces[0]
			pieces = pieces[1:]
			if p.at != len(g.data) {
				err = octets.ErrCorrupt
			}
			keys = append(keys, p.key)
			g.data = append(g.data, p.value...)
			g.pieces, g.stored = append(g.pieces, p.at), len(g.data)
		}
		x.next = g.number + 1
		var read *segment
		if err == nil {
			read, err = g.read()
		}
		if err != nil {
			lose(err, keys...)
			continue
		}
		x.segments = append(x.segments, read)
		x.size += len(read.data)
		x.newest = max(x.newest, read.latest)
	}
	return damaged
}

// restoreDoubts takes in the doubts, or doubts everything if they are damaged.
func (x *Memory) restoreDoubts(data []byte) error {
	r := octets.NewReader(data)
	for range r.Count() {
		x.doubts = append(x.doubts, users.Doubt{VRF: r.Text(), Prefix: r.Prefix(), From: r.Varint(), Until: r.Varint()})
	}
	err := r.Close()
	if err != nil {
		x.doubts, x.changed = []users.Doubt{{}}, true
	}
	return err
}
