package asm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	"tollbridge/dedup"
	"tollbridge/internal/octets"
)

// released are the identities of records that an operator released from
// suspense though their window could not prove them new: the same record may
// wait there once more, or come once more, and must not count again.
type released struct {
	all    map[dedup.Identity]bool
	pieces []*releasedPiece // by ascending position
}

// A releasedPiece is what one command released.
type releasedPiece struct {
	position   uint64 // of the command's entry
	at         int64  // Unix nanoseconds
	identities []dedup.Identity
	stored     bool
	over       bool
}

// keepReleased is how long they are remembered.
const keepReleased = 7 * 24 * time.Hour

func (r *released) has(id dedup.Identity) bool { return len(r.all) > 0 && r.all[id] }

// begin is called for each command, at a time in Unix nanoseconds.
func (r *released) begin(position uint64, at int64) {
	r.pieces = append(r.pieces, &releasedPiece{position: position, at: at})
}

// add remembers id as released by the latest command.
func (r *released) add(id dedup.Identity) {
	if r.all == nil {
		r.all = make(map[dedup.Identity]bool)
	}
	r.all[id] = true
	p := r.pieces[len(r.pieces)-1]
	p.identities = append(p.identities, id)
}

// expire forgets what was released too long ago.
func (r *released) expire(now int64) {
	for _, p := range r.pieces {
		if p.over || p.at > now-int64(keepReleased) {
			continue
		}
		p.over = true
		for _, id := range p.identities {
			delete(r.all, id)
		}
	}
}

// put hands out what changed since the last call.
func (r *released) put(put func(kind, key string, value []byte)) {
	r.pieces = slices.DeleteFunc(r.pieces, func(p *releasedPiece) bool {
		key := strconv.FormatUint(p.position, 10)
		if p.over || len(p.identities) == 0 {
			if p.stored {
				put(stateReleased, key, nil)
			}
			return true
		}
		if !p.stored {
			b := binary.AppendVarint(nil, p.at)
			for _, id := range p.identities {
				b = id.Append(b)
			}
			put(stateReleased, key, b)
			p.stored = true
		}
		return false
	})
}

// restore takes in a piece. They come in any order.
func (r *released) restore(key string, value []byte) error {
	position, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no position: %w", key, ErrCorrupt)
	}
	d := octets.NewReader(value)
	r.pieces = append(r.pieces, &releasedPiece{position: position, at: d.Varint(), stored: true})
	p := r.pieces[len(r.pieces)-1]
	for d.Len() > 0 {
		id := dedup.ReadIdentity(&d)
		if d.Err() == nil {
			p.identities = append(p.identities, id)
			if r.all == nil {
				r.all = make(map[dedup.Identity]bool)
			}
			r.all[id] = true
		}
	}
	slices.SortFunc(r.pieces, func(a, b *releasedPiece) int { return int(int64(a.position) - int64(b.position)) })
	return d.Close()
}
