package asm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
)

// A Command is what an operator orders: the data of an acct.EntryCommand. So
// it is carried out at the same place whenever the journal is read.
type Command struct {
	What   string `json:"what"`   // ReleaseFlows, RejectFlows, AdjustUsage, NewEpoch
	By     string `json:"by"`     // who orders it
	Reason string `json:"reason"` // why

	Flows  Selection    `json:"flows,omitzero"`
	Adjust []Adjustment `json:"adjust,omitempty"`
}

// What Commands order.
const (
	ReleaseFlows = "release" // suspended flows are accounted as if they were new
	RejectFlows  = "reject"  // suspended flows are given up
	AdjustUsage  = "adjust"  // what users were charged is corrected
	NewEpoch     = "epoch"   // the spool was restored from a backup: Session-Ids begin anew
	SetClock     = "clock"   // the clock is set back to the time of the entry; the daemon orders it
)

// A Selection names suspended flows: those that all of its conditions hold for.
type Selection struct {
	All      bool     `json:"all,omitempty"` // must be set if no condition is
	IDs      []uint64 `json:"ids,omitempty"`
	Exporter string   `json:"exporter,omitempty"`
	For      string   `json:"for,omitempty"` // why they were suspended, see Reasons
}

// ErrCommand is matched by the errors of Commands that can't be carried out.
var ErrCommand = errors.New("invalid command")

// Validate returns an error that matches ErrCommand if c can't be carried out.
func (c *Command) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("asm: command %q: "+format+": %w", append(append([]any{c.What}, args...), ErrCommand)...)
	}
	switch {
	case c.By == "":
		return bad("by: want the name of who orders it")
	case strings.TrimSpace(c.Reason) == "":
		return bad("reason: want why, for the books")
	}
	switch c.What {
	case ReleaseFlows, RejectFlows:
		f := &c.Flows
		switch {
		case f.For != "" && !slices.Contains(Reasons(), f.For):
			return bad("flows suspended for %q: want one of %q", f.For, Reasons())
		case !f.All && len(f.IDs) == 0 && f.Exporter == "" && f.For == "":
			return bad("flows: want IDs, an exporter, a reason of suspense, or all")
		}
		return nil
	case SetClock, NewEpoch:
		return nil
	case AdjustUsage:
		if n := len(c.Adjust); n == 0 || n > maxAdjustments {
			return bad("adjust: %d corrections: want 1 to %d", n, maxAdjustments)
		}
		for i := range c.Adjust {
			if err := c.Adjust[i].validate(); err != nil {
				return bad("adjust[%d]: %w", i, err)
			}
		}
		return nil
	}
	return bad("want %q, %q, %q or %q", ReleaseFlows, RejectFlows, AdjustUsage, NewEpoch)
}

// AppendBinary appends the data of an acct.EntryCommand.
func (c *Command) AppendBinary(b []byte) ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("asm: encode command: %w", err)
	}
	return append(b, data...), nil
}

// ParseCommand reads what AppendBinary wrote, and validates it.
func ParseCommand(data []byte) (Command, error) {
	var c Command
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&c); err != nil {
		return Command{}, fmt.Errorf("asm: decode command: %w: %w", err, ErrCorrupt)
	}
	return c, c.Validate()
}

// has reports whether x is one of the flows that s names. The IDs are sorted.
func (s *Selection) has(x *acct.Suspended) bool {
	if s.Exporter != "" && s.Exporter != x.Key.Exporter || s.For != "" && s.For != x.Reason {
		return false
	}
	_, named := slices.BinarySearch(s.IDs, x.ID)
	return len(s.IDs) == 0 || named
}

// String describes s for people.
func (s *Selection) String() string {
	var parts []string
	if s.For != "" {
		parts = append(parts, s.For)
	}
	if s.Exporter != "" {
		parts = append(parts, "exporter "+s.Exporter)
	}
	switch n := len(s.IDs); {
	case n > 5:
		parts = append(parts, fmt.Sprintf("%d flows", n))
	case n > 0:
		ids := make([]string, n)
		for i, id := range s.IDs {
			ids[i] = strconv.FormatUint(id, 10)
		}
		parts = append(parts, "flows "+strings.Join(ids, " "))
	case len(parts) == 0:
		parts = append(parts, "all")
	}
	return strings.Join(parts, ", ")
}

// command applies an acct.EntryCommand.
func (m *Module) command(ctx context.Context, e acct.Entry) error {
	c, err := ParseCommand(e.Data)
	if err != nil {
		m.broken(e, err)
		return nil
	}
	d := acct.Decision{Position: e.Position, At: e.Time, By: c.By, What: c.What, Reason: c.Reason}
	switch c.What {
	case SetClock:
		m.setBack(e.Time)
		return nil
	case AdjustUsage:
		d.Count, d.On = m.adjust(e.Position, &c)
	case NewEpoch:
		d.On = fmt.Sprintf("%d sessions, epoch %d", m.newEpoch(e), m.epoch)
	default:
		slices.Sort(c.Flows.IDs)
		d.On = c.Flows.String()
		d.Count, err = m.decide(ctx, e, &c)
	}
	m.decisions = append(m.decisions, d)
	m.log.Info("an operator's command was carried out", "what", d.What, "by", d.By, "on", d.On, "records", d.Count.Records, "octets", d.Count.Octets)
	return err
}

// decide releases or rejects suspended flows and returns what they come to.
func (m *Module) decide(ctx context.Context, e acct.Entry, c *Command) (total acct.Count, err error) {
	m.released.begin(e.Position, m.now)
	err = m.resume(ctx, 0, c.Flows.has, func(*acct.Suspended) bool { return false },
		func(x *acct.Suspended, h *held) (bool, error) {
			row := m.ledger.row(x.Key)
			switch {
			case c.What == RejectFlows:
				row.Rejected = row.Rejected.Plus(x.Count)
			case m.settings.Mode == ModeAAAClient && len(h.avps) == 0:
				return false, nil // it was suspended under another mode: the AAA server could not read it
			case leftToNext(x, h), h.identified && !m.proveNew(x, h):
				row.Duplicate = row.Duplicate.Plus(x.Count)
			case !m.release(x, h):
				return false, nil
			}
			total = total.Plus(x.Count)
			return true, nil
		})
	return total, err
}

// leftToNext reports whether a flow is a report of totals that ended ahead of
// the clock: the next one that does not says all of it again.
func leftToNext(x *acct.Suspended, h *held) bool {
	return x.Reason == reasonAhead && !h.identified && x.Count == acct.Count{Records: 1}
}

// proveNew reports whether a flow that was outside of its window is none that
// came again meanwhile or was released before. It is remembered from now on.
func (m *Module) proveNew(x *acct.Suspended, h *held) bool {
	if m.released.has(h.identity) {
		return false
	}
	w := m.windowOf(x.Key.Exporter)
	w.From(0)
	if w.Add(h.identity, h.flow.end) == dedup.Duplicate {
		return false
	}
	m.released.add(h.identity)
	return true
}

// release accounts a suspended flow that an operator has declared to be new,
// and reports whether it leaves its place in suspense.
func (m *Module) release(x *acct.Suspended, h *held) bool {
	f := &h.flow
	if m.settings.Mode == ModeAAAClient {
		m.emitFlow(f, bytes.Clone(h.avps), x.Key)
		f.book(m.ledger.row(x.Key), x.Count, acct.Count{})
		return true
	}
	accounted, mirrored := m.mapped(f, x.Key)
	if !accounted.IsZero() {
		f.book(m.ledger.row(x.Key), accounted, mirrored)
		return true
	}
	if x.Reason == reasonUnmapped {
		return false
	}
	// Now it waits for a user, as it would have from the start.
	m.wait(x, h)
	return true
}
