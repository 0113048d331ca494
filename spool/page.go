package spool

import (
	"encoding/binary"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
)

// A page of the outbox: records with consecutive or at least ascending IDs,
// encoded as
//
//	octet version, 2
//	records: uvarint ID less the one before (the first: less the page's first),
//	         uvarint length, content (acct.Record.AppendBinary),
//	         uvarint length, shares (acct.AppendShares),
//	         uint32 CRC-32C of the ID and the content,
//	         uint32 CRC-32C of the ID and the shares
//
// Version 1 had no checksums; it is still read.
type page struct {
	first, last uint64
	octets      int // of its encoding
	items       []item
	lost        error // the records behind the last item can't be told apart; nil if there are none
}

// An item is a record in a page; its octets are the page's.
type item struct {
	id      uint64
	content []byte
	shares  []byte
	damage  error // of the content; nil for none
	unknown error // why the shares are damaged; nil if they are not
}

const (
	pageVersion = 2
	pageOctets  = 32 << 10 // a page is closed when it has as many
)

// pack encodes records into pages, numbering them from first on.
func pack(first uint64, records []acct.Record) ([]packed, error) {
	var out []packed
	var content, shares []byte
	for i := range records {
		var err error
		if content, err = records[i].AppendBinary(content[:0]); err != nil {
			return nil, err
		}
		shares = acct.AppendShares(shares[:0], records[i].Shares)
		out = appendItem(out, first+uint64(i), content, shares)
	}
	return out, nil
}

// A packed page is one as table record_page has it.
type packed struct {
	first, last uint64
	count       int
	data        []byte
}

// appendItem puts a record behind those of pages, in a new page if the last
// one has enough.
func appendItem(pages []packed, id uint64, content, shares []byte) []packed {
	if n := len(pages); n == 0 || len(pages[n-1].data) >= pageOctets {
		pages = append(pages, packed{first: id, last: id, data: []byte{pageVersion}})
	}
	p := &pages[len(pages)-1]
	p.data = binary.AppendUvarint(p.data, id-p.last)
	p.data = octets.AppendBytes(p.data, content)
	p.data = octets.AppendBytes(p.data, shares)
	p.data = binary.BigEndian.AppendUint32(p.data, sumOf(id, content))
	p.data = binary.BigEndian.AppendUint32(p.data, sumOf(id, shares))
	p.last = id
	p.count++
	return pages
}

func (w *writer) addPages(pages []packed) error {
	for _, p := range pages {
		err := w.exec("INSERT INTO record_page (last, first, count, data) VALUES (?, ?, ?, ?)",
			int64(p.last), int64(p.first), p.count, p.data)
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		w.grown += int64(len(p.data))
	}
	return nil
}

// parsePage reads what appendItem wrote. Damage of a record stays with that
// record; damage of what parts them loses those behind it, which is put down in
// the page.
func parsePage(first, last uint64, b []byte) *page {
	p := &page{first: first, last: last, octets: len(b)}
	lose := func(after uint64) *page {
		p.lost = fmt.Errorf("outbox records %d to %d: %w", after+1, last, ErrDamaged)
		return p
	}
	if len(b) == 0 || b[0] == 0 || b[0] > pageVersion {
		return lose(first - 1)
	}
	sums := b[0] > 1
	c := octets.NewReader(b[1:])
	for id := first; c.Len() > 0; {
		before := first - 1
		if n := len(p.items); n > 0 {
			before = p.items[n-1].id
		}
		id += c.Uvarint()
		it := item{id: id, content: c.Bytes(), shares: c.Bytes()}
		if sums {
			if sum := c.Take(8); sum != nil {
				if binary.BigEndian.Uint32(sum) != sumOf(id, it.content) {
					it.damage = fmt.Errorf("content of outbox record %d, %d octets: %w", id, len(it.content), ErrDamaged)
				}
				if binary.BigEndian.Uint32(sum[4:]) != sumOf(id, it.shares) {
					it.unknown = fmt.Errorf("amounts of outbox record %d: %w", id, ErrDamaged)
				}
			}
		}
		if c.Err() != nil || it.id > last || it.id <= before || before == first-1 && it.id != first ||
			it.damage != nil && it.unknown != nil { // of two wrong sums the octets are likely not the record's at all
			return lose(before)
		}
		p.items = append(p.items, it)
	}
	if n := len(p.items); n == 0 {
		return lose(first - 1)
	} else if p.items[n-1].id != last {
		return lose(p.items[n-1].id)
	}
	return p
}

// find returns the record with an ID; one that is lost with its damage.
func (p *page) find(id uint64) (item, bool) {
	i, ok := slices.BinarySearchFunc(p.items, id, func(it item, id uint64) int { return cmpID(it.id, id) })
	switch {
	case ok:
		return p.items[i], true
	case p.lost != nil && i == len(p.items) && id <= p.last:
		return item{id: id, damage: p.lost, unknown: p.lost}, true
	}
	return item{}, false
}

// lostMost bounds how many records of a page are told as lost: more than fit
// into one.
const lostMost = 1 << 16

// all returns the records of p, those that are lost with their damage: some of
// their IDs may never have been.
func (p *page) all() []item {
	if p.lost == nil {
		return p.items
	}
	items := slices.Clone(p.items)
	next := p.first
	if n := len(items); n > 0 {
		next = items[n-1].id + 1
	}
	for id := next; id <= p.last && id-next < lostMost; id++ {
		items = append(items, item{id: id, damage: p.lost, unknown: p.lost})
	}
	return items
}
