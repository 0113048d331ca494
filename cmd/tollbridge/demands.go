package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/spool"
)

// demands remember the peers that demand DELIVER_AND_GRANT (RFC 6733, Section
// 9.8.7) in their answers. A daemon that starts while such a peer is away goes
// by what that said last, as one does that has been running all along.
type demands struct {
	notes  notes
	log    *slog.Logger
	peers  []string // addresses, as stored
	failed bool     // they could not be stored, and that was said
}

// demandsNote is the name of theirs, a list in JSON.
const demandsNote = "realtime"

// openDemands reads what was stored, if anything was. Where that is damaged,
// peers demand nothing until they answer.
func openDemands(ctx context.Context, notes notes, log *slog.Logger) (*demands, error) {
	d := &demands{notes: notes, log: log}
	content, err := notes.Note(ctx, demandsNote)
	if err != nil && !errors.Is(err, spool.ErrDamaged) {
		return nil, err
	}
	if err == nil && content != nil {
		err = json.Unmarshal(content, &d.peers)
	}
	if err != nil {
		log.Error("which peers demand DELIVER_AND_GRANT can't be read: they are taken to demand nothing until they answer", "error", err)
		d.peers = nil
	}
	return d, nil
}

// of reports whether the peer at an address demanded it when it last answered.
func (d *demands) of(address string) bool {
	if !slices.Contains(d.peers, address) {
		return false
	}
	d.log.Error("peer demanded DELIVER_AND_GRANT in its last answer: service only while records can be delivered", "peer", address)
	return true
}

// run stores once a second what client has heard, until ctx ends.
func (d *demands) run(ctx context.Context, client interface{ Stats() aaaclient.Stats }) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			d.keep(client.Stats().Peers)
		}
	}
}

// keep stores durably which peers demand it, if that has changed.
func (d *demands) keep(peers []aaaclient.PeerStats) {
	now := []string{}
	for _, p := range peers {
		if p.Realtime {
			now = append(now, p.Address)
		}
	}
	if slices.Equal(now, d.peers) {
		return
	}
	content, err := json.Marshal(now)
	if err == nil {
		err = d.notes.PutNote(demandsNote, content)
	}
	if err == nil {
		d.peers = now
	} else if !d.failed {
		d.log.Error("which peers demand DELIVER_AND_GRANT can't be stored: a restart forgets it", "error", err)
	}
	d.failed = err != nil
}
