package spool

import (
	"encoding/binary"
	"fmt"

	"tollbridge/asm/acct"
)

// A page of the outbox: records with consecutive or at least ascending IDs,
// encoded as
//
//	octet version, 1
//	records: uvarint ID less the one before (the first: less the page's first),
//	         uvarint length, content (acct.Record.AppendBinary),
//	         uvarint length, shares (acct.AppendShares)
type page struct {
	first, last uint64
	octets      int // of its encoding
	items       []item
}

// An item is a record in a page; its octets are the page's.
type item struct {
	id      uint64
	content []byte
	shares  []byte
}

const (
	pageVersion = 1
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
	p.data = binary.AppendUvarint(p.data, uint64(len(content)))
	p.data = append(p.data, content...)
	p.data = binary.AppendUvarint(p.data, uint64(len(shares)))
	p.data = append(p.data, shares...)
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

// parsePage reads what appendItem wrote.
func parsePage(first, last uint64, b []byte) (*page, error) {
	bad := func() (*page, error) {
		return nil, fmt.Errorf("outbox records %d to %d: %w", first, last, ErrDamaged)
	}
	if len(b) == 0 || b[0] != pageVersion {
		return bad()
	}
	p := &page{first: first, last: last, octets: len(b)}
	c := cursor{b: b[1:]}
	for id := first; len(c.b) > 0; {
		id += c.uvarint()
		it := item{id: id, content: c.octets(c.uvarint()), shares: c.octets(c.uvarint())}
		if !c.ok() || it.id > last || len(p.items) > 0 && it.id <= p.items[len(p.items)-1].id {
			return bad()
		}
		p.items = append(p.items, it)
	}
	if n := len(p.items); n == 0 || p.items[0].id != first || p.items[n-1].id != last {
		return bad()
	}
	return p, nil
}
