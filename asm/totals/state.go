package totals

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
)

// Exporters are the Tables of all exporters.
type Exporters map[string]*Table

// Of returns the Table of an exporter, a new one if it has none.
func (x Exporters) Of(exporter string) *Table {
	t := x[exporter]
	if t == nil {
		t = NewTable()
		x[exporter] = t
	}
	return t
}

// Bound forgets the totals of each exporter beyond most, and returns how many
// of flows that may have gone on.
func (x Exporters) Bound(most int) (forgotten int) {
	for _, t := range x {
		forgotten += t.bound(most)
	}
	return forgotten
}

// Len returns how many flows are remembered.
func (x Exporters) Len() (n int) {
	for _, t := range x {
		n += len(t.byKey)
	}
	return n
}

// tableVersion is the first octet of an encoded piece.
const tableVersion = 1

// AppendBinary appends t as one piece. It returns no error.
func (t *Table) AppendBinary(b []byte) ([]byte, error) {
	b = t.appendHead(b, nil)
	for e := t.oldest; e != nil; e = e.newer {
		b = e.append(b)
	}
	return b, nil
}

// appendDelta appends what changed since the last piece.
func (t *Table) appendDelta(b []byte) []byte {
	b = t.appendHead(b, t.removed)
	for _, e := range t.dirty {
		if !e.gone {
			b = e.append(b)
		}
	}
	return b
}

func (t *Table) appendHead(b []byte, removed []dedup.Identity) []byte {
	b = append(b, tableVersion)
	b = binary.AppendUvarint(b, t.next)
	b = binary.AppendVarint(b, t.horizon)
	b = binary.AppendUvarint(b, uint64(len(removed)))
	for _, k := range removed {
		b = k.Append(b)
	}
	return b
}

func (e *total) append(b []byte) []byte {
	b = e.key.Append(b)
	for _, v := range e.values {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendVarint(b, e.end)
	b = binary.AppendUvarint(b, e.used)
	return octets.AppendBool(b, e.over)
}

// restore takes in a piece. After the last one order must be called.
func (t *Table) restore(data []byte) error {
	r := octets.NewReader(data)
	if r.Octet() != tableVersion {
		r.Fail()
	}
	t.next, t.horizon = r.Uvarint(), r.Varint()
	for range r.Count() {
		delete(t.byKey, dedup.ReadIdentity(&r))
	}
	for r.Len() > 0 {
		e := &total{key: dedup.ReadIdentity(&r)}
		for i := range e.values {
			e.values[i] = r.Uvarint()
		}
		e.end, e.used, e.over = r.Varint(), r.Uvarint(), r.Bool()
		t.byKey[e.key] = e
	}
	return r.Close()
}

// order links what was restored in the order of its use.
func (t *Table) order() {
	all := slices.SortedFunc(maps.Values(t.byKey), func(a, b *total) int { return cmp.Compare(a.used, b.used) })
	for _, e := range all {
		t.link(e)
	}
}

// Delta hands out what changed since the last call, as a piece per exporter;
// a nil value deletes one. Once the pieces of an exporter are twice what one
// would be, one takes the place of all.
func (x Exporters) Delta(put func(key string, value []byte)) {
	for _, exporter := range slices.Sorted(maps.Keys(x)) {
		t := x[exporter]
		if len(t.dirty)+len(t.removed) == 0 {
			continue
		}
		const each = 48 // octets of an encoded total, about
		t.piece++
		key := exporter + "/" + strconv.FormatUint(t.piece, 10)
		var value []byte
		if t.size > 2*each*len(t.byKey)+1<<14 {
			value, _ = t.AppendBinary(nil)
			for _, old := range t.pieces {
				put(old, nil)
			}
			t.pieces, t.size = nil, 0
		} else {
			value = t.appendDelta(nil)
		}
		t.pieces = append(t.pieces, key)
		t.size += len(value)
		put(key, value)
		for _, e := range t.dirty {
			e.dirty = false
		}
		clear(t.dirty)
		t.dirty, t.removed = t.dirty[:0], t.removed[:0]
	}
}

// Restore takes in the pieces of all exporters that Delta handed out and did
// not delete, in any order.
func (x Exporters) Restore(state []acct.State) error {
	type stored struct {
		acct.State
		exporter string
		number   uint64
	}
	pieces := make([]stored, 0, len(state))
	for _, s := range state {
		i := strings.LastIndexByte(s.Key, '/')
		number, err := strconv.ParseUint(s.Key[i+1:], 10, 64)
		if i < 0 || err != nil {
			return fmt.Errorf("state %s %s: %w", s.Kind, s.Key, octets.ErrCorrupt)
		}
		pieces = append(pieces, stored{s, s.Key[:i], number})
	}
	slices.SortFunc(pieces, func(a, b stored) int {
		return cmp.Or(strings.Compare(a.exporter, b.exporter), cmp.Compare(a.number, b.number))
	})
	for _, p := range pieces {
		t := x.Of(p.exporter)
		if err := t.restore(p.Value); err != nil {
			return fmt.Errorf("state %s %s: %w", p.Kind, p.Key, err)
		}
		t.pieces = append(t.pieces, p.Key)
		t.size += len(p.Value)
		t.piece = p.number
	}
	for _, t := range x {
		t.order()
	}
	return nil
}
