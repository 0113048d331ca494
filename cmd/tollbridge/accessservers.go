package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"tollbridge/asm/users"
	"tollbridge/asm/users/nasreq"
	"tollbridge/dict/avp"
	"tollbridge/spool"
)

// accessServers remember the Origin-State-Id of each access server. One that
// rises says that the sessions of before are over (RFC 6733, Section 8.16): the
// access server restarted, and tells of no STOP.
//
// A rise is stored before it is journaled and answered, with the moment that it
// speaks of, and that moment is forgotten once the end of the sessions is
// durable in the journal: what a crash leaves undone in between is journaled at
// the next start. Later it must not be: it would end sessions that had begun
// by then and were heard of since.
type accessServers struct {
	notes notes

	mu    sync.Mutex
	known map[string]accessServer // by Origin-Host in lower case
}

// notes are what is durable of them: a spool.
type notes interface {
	Note(ctx context.Context, name string) ([]byte, error)
	PutNote(name string, content []byte) error
}

// accessNote is the name of theirs, a list in JSON.
const accessNote = "access servers"

type accessServer struct {
	Host    string    `json:"origin_host"`
	StateID uint32    `json:"origin_state_id"`
	Ended   time.Time `json:"ended,omitzero"` // sessions are over that began until then, which may not be durable; zero otherwise
	Heard   time.Time `json:"heard,omitzero"` // the latest that was told with StateID, as of when this was stored

	entry uint64 // the journal's entry of that; 0 if there is none
}

// openAccessServers reads what was stored, if anything was: in earlier versions
// in file. Where that is damaged, access servers are taken as new.
func openAccessServers(ctx context.Context, notes notes, file string, log *slog.Logger) (*accessServers, error) {
	a := &accessServers{notes: notes, known: map[string]accessServer{}}
	content, err := notes.Note(ctx, accessNote)
	if err != nil && !errors.Is(err, spool.ErrDamaged) {
		return nil, err
	}
	former := err == nil && content == nil
	if former {
		if content, err = os.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
			return a, nil
		}
	}
	var list []accessServer
	if err == nil {
		err = json.Unmarshal(content, &list)
	}
	if err != nil {
		log.Error("what is known of access servers can't be read: they are taken as new, and the end of their sessions by a restart until now is not noticed", "error", err)
		return a, nil
	}
	for _, s := range list {
		a.known[strings.ToLower(s.Host)] = s
	}
	if former {
		if err := errors.Join(a.store(), os.Remove(file)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// ends returns the end of the sessions of before for every access server that
// has restarted, as far as no entry of the journal tells of it.
func (a *accessServers) ends() []users.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []users.Event
	for _, s := range a.known {
		if !s.Ended.IsZero() && s.entry == 0 {
			all = append(all, s.end())
		}
	}
	return all
}

func (s accessServer) end() users.Event {
	return users.Event{Source: nasreq.Source, Kind: users.EndAll, NAS: s.Host, At: s.Ended}
}

// see takes in a request of an access server, of which e has come. It reports
// whether the sessions of before are over, and returns their end.
func (a *accessServers) see(e *users.Event, avps []byte) (end users.Event, rose bool, err error) {
	found, ok := avp.Find(avps, avp.OriginStateID, 0)
	if !ok {
		return end, false, nil
	}
	id, err := found.Uint32()
	if err != nil {
		return end, false, fmt.Errorf("access server's Origin-State-Id: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := strings.ToLower(e.NAS)
	s, known := a.known[key]
	if known && id == s.StateID && e.At.After(s.Heard) {
		s.Heard = e.At
		a.known[key] = s
	}
	if known && id <= s.StateID {
		// What could not be journaled is tried again.
		return s.end(), id == s.StateID && !s.Ended.IsZero() && s.entry == 0, nil
	}
	before := s
	s.Host, s.StateID, s.Heard = e.NAS, id, e.At
	if known {
		// What began with this session, or after it, is of the new life; unless it
		// is one that has outlived the restart, which came after what was heard last.
		s.Ended, s.entry = e.Since.Add(-time.Millisecond), 0
		if before.Heard.After(s.Ended) && before.Heard.Before(e.At) {
			s.Ended = before.Heard
		}
	}
	a.known[key] = s
	if err := a.store(); err != nil {
		if a.known[key] = before; !known {
			delete(a.known, key)
		}
		return end, false, fmt.Errorf("%w: %w", errNotStored, err)
	}
	return s.end(), known, nil
}

// journaled takes in that an entry of the journal has an end.
func (a *accessServers) journaled(end *users.Event, entry uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := strings.ToLower(end.NAS)
	if s := a.known[key]; s.Ended.Equal(end.At) {
		s.entry = entry
		a.known[key] = s
	}
}

// durable takes in that the journal is durable up to an entry: ends up to it
// are not journaled again.
func (a *accessServers) durable(entry uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := false
	for key, s := range a.known {
		if s.entry != 0 && s.entry <= entry {
			s.Ended, s.entry = time.Time{}, 0
			a.known[key], changed = s, true
		}
	}
	if !changed {
		return nil
	}
	return a.store()
}

func (a *accessServers) store() error {
	list := make([]accessServer, 0, len(a.known))
	for _, s := range a.known {
		list = append(list, s)
	}
	content, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return a.notes.PutNote(accessNote, content)
}
