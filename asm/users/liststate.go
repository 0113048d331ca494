package users

import (
	"fmt"
	"net/netip"
	"slices"
)

// AppendSource appends an encoding of all Holders of a source's lists, with
// those that were removed but not dropped yet, for a checkpoint.
func (t *Table) AppendSource(b []byte, source string) []byte {
	i, ok := t.search(source)
	if !ok {
		return appendHeader(b, source, 0)
	}
	s := t.sources[i]
	b = appendHeader(b, source, len(s.holders)+len(s.removed))
	for _, h := range s.holders {
		b = appendBinding(b, h.Binding(), 0)
	}
	for _, h := range s.removed {
		b = appendBinding(b, h.Binding(), flagRemoved)
	}
	return b
}

// RestoreSourceOf is RestoreSource of those bindings alone whose prefix has one
// of some addresses.
func (t *Table) RestoreSourceOf(data []byte, addrs []netip.Addr) error {
	return t.restoreSource(data, func(b Binding) bool { return contains(b.Prefix, addrs) })
}

func contains(p netip.Prefix, addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, p.Contains)
}

// RestoreSource brings back what AppendSource appended, into a Table that has
// nothing of that source yet. Errors match ErrCorrupt, and change nothing.
func (t *Table) RestoreSource(data []byte) error {
	return t.restoreSource(data, func(Binding) bool { return true })
}

// restoreSource is RestoreSource for the bindings that are wanted.
func (t *Table) restoreSource(data []byte, wanted func(Binding) bool) error {
	var bindings []Binding
	listed := 0
	name, _, err := eachBinding(data, true, func(string, int) {}, func(b Binding, removed bool) error {
		if !wanted(b) {
			return nil
		}
		bindings = append(bindings, b)
		if !removed {
			listed++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if i, ok := t.search(name); ok && len(t.sources[i].holders)+len(t.sources[i].removed) > 0 {
		return fmt.Errorf("users: restore %s: the source is there already: %w", name, ErrCorrupt)
	}
	t.Replace(name, bindings, 0)
	s := t.source(name)
	if len(s.holders) != len(bindings) {
		for _, h := range s.holders {
			t.unlink(h)
		}
		s.holders = nil
		t.dropIfEmpty(s)
		return fmt.Errorf("users: restore %s: a binding comes twice: %w", name, ErrCorrupt)
	}
	for _, h := range s.holders[listed:] {
		t.unlink(h)
		h.flags |= holderRemoved
		t.link(h)
	}
	s.removed, s.holders = slices.Clone(s.holders[listed:]), slices.Clip(s.holders[:listed])
	t.dropIfEmpty(s)
	return nil
}

// VisitSource visits the Holders of what AppendSource appended, those of a user
// or all where user is "", in order, until visit returns an error, which it
// returns, and keeps none. Errors of its own match ErrCorrupt.
func VisitSource(data []byte, user string, visit func(*Holder) error) error {
	t, s := new(Table), new(source)
	_, _, err := eachBinding(data, true, func(name string, _ int) { s.name = name }, func(b Binding, removed bool) error {
		if user != "" && b.User != user {
			return nil
		}
		h := new(Holder)
		t.list(h, s, b)
		if removed {
			h.flags |= holderRemoved
		}
		return visit(h)
	})
	return err
}
