package auditcmd

import (
	"context"
	"errors"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/entry"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/spool"
)

// A Duplicate is a Data Record that counts no more, its twin, and why.
type Duplicate struct {
	Position     uint64     `json:"journal_position"`
	Record       int        `json:"record"` // in its Data Set, from 0
	Exporter     string     `json:"exporter"`
	Domain       uint32     `json:"domain"`
	Interval     time.Time  `json:"interval"`
	Flow         string     `json:"flow"`
	FlowEnd      time.Time  `json:"flow_end"`
	Count        acct.Count `json:"count"`
	Why          string     `json:"why"`
	TwinPosition uint64     `json:"twin_journal_position,omitempty"`
	TwinRecord   int        `json:"twin_record"`
}

// A duplicateTracer collects the duplicates of the rows that are asked for.
type duplicateTracer struct {
	sel   spool.Selection
	views []Duplicate
}

func (t *duplicateTracer) Flow(uint64, asm.TracedFlow) {}
func (t *duplicateTracer) Record(uint64, *acct.Record) {}

// Duplicate implements asm.DuplicateTracer.
func (t *duplicateTracer) Duplicate(d asm.TracedDuplicate) {
	if !t.sel.Has(d.LedgerKey) {
		return
	}
	t.views = append(t.views, Duplicate{
		d.Position, d.Ordinal, d.Exporter, d.Domain, listing.UnixTime(d.Interval), d.Endpoints, d.End, d.Count, d.Why, d.TwinPosition, d.TwinOrdinal,
	})
}

// duplicatesTable reads again what is kept of the journal and lists the
// duplicates in it. One whose twin came before that is not known as such here.
func duplicatesTable(ctx context.Context, s *spool.Spool, sel spool.Selection) (listing.Table, error) {
	t := &duplicateTracer{sel: sel, views: []Duplicate{}}
	opening, err := s.OpeningAt(ctx, time.Unix(0, 0))
	switch {
	case err != nil && !errors.Is(err, spool.ErrNotFound):
		return listing.Table{}, err
	case err == nil || opening.State != nil:
		if err := entry.Replay(ctx, s, opening, t, func(uint64) bool { return false }); err != nil {
			return listing.Table{}, err
		}
	}
	out := listing.Table{Value: t.views, Columns: []string{"journal_position", "record", "exporter", "domain", "interval", "flow", "flow_end", "octets", "why", "twin_journal_position", "twin_record"}}
	for _, v := range t.views {
		out.Add(v.Position, v.Record, v.Exporter, v.Domain, listing.Time(v.Interval), v.Flow, listing.Time(v.FlowEnd), v.Count.Octets, v.Why, v.TwinPosition, v.TwinRecord)
	}
	return out, nil
}
