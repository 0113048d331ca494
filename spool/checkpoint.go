package spool

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/crashpoint"
)

// A checkpoint is what of the stored one has to be known to write the next.
// It changes only after a COMMIT, so a failed one leaves it as the disk is.
type checkpoint struct {
	position      uint64
	needed        uint64
	nextRecord    uint64
	nextSuspended uint64
	identities    map[identityBucket]identityRows
}

func (s *Spool) loadCheckpoint() error {
	c := &s.checkpoint
	ctx := context.Background()
	for _, m := range []struct {
		name string
		to   *uint64
	}{
		{metaPosition, &c.position},
		{metaNeeded, &c.needed},
		{metaNextRecord, &c.nextRecord},
		{metaNextSuspended, &c.nextSuspended},
	} {
		v, err := metaNumber(ctx, s.r, m.name)
		if err != nil {
			return explain(s.w.file, err)
		}
		*m.to = uint64(v)
	}
	var err error
	c.identities, err = loadIdentities(ctx, s.r, s.w.file)
	return err
}

// Commit stores a checkpoint in one transaction: all of b or nothing, durable
// when it returns nil. It numbers the records of b and puts them into the
// outbox. After an error disk is as before; memory ahead of it must be dropped
// and loaded again.
func (s *Spool) Commit(ctx context.Context, b acct.Batch) error {
	if s.w == nil {
		return ErrReadOnly
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	c := &s.checkpoint
	if b.Position < c.position || b.Needed > b.Position+1 {
		return fmt.Errorf("spool: commit: checkpoint at position %d that needs %d, after one at %d", b.Position, b.Needed, c.position)
	}
	s.log.Debug("checkpoint begin", "position", b.Position, "records", len(b.Records), "sessions", len(b.Sessions))
	begun := time.Now()

	pages, err := pack(c.nextRecord, b.Records)
	if err != nil {
		return fmt.Errorf("spool: commit: %w", err)
	}
	nextRecord := c.nextRecord + uint64(len(b.Records))
	nextSuspended := c.nextSuspended
	for i := range b.Suspended {
		nextSuspended = max(nextSuspended, b.Suspended[i].ID+1)
	}
	var identities map[identityBucket]identityRows
	err = s.w.transactLocked(func() error {
		if err := s.w.addPages(pages); err != nil {
			return err
		}
		if err := s.w.addLedger(b.Ledger); err != nil {
			return err
		}
		if err := s.w.putSessions(b.Sessions); err != nil {
			return err
		}
		if err := s.w.addSuspended(b.Suspended); err != nil {
			return err
		}
		if err := s.w.deleteIDs("DELETE FROM suspended WHERE id", b.Released); err != nil {
			return fmt.Errorf("suspended: %w", err)
		}
		if err := s.w.putState(b.State); err != nil {
			return err
		}
		var err error
		if identities, err = s.w.addIdentities(c.identities, b.Identities, b.Floors); err != nil {
			return fmt.Errorf("identities: %w", err)
		}
		if err := s.w.addDecisions(b.Decisions); err != nil {
			return err
		}
		for _, m := range []struct {
			name  string
			value int64
		}{
			{metaPosition, int64(b.Position)},
			{metaNeeded, int64(b.Needed)},
			{metaTime, b.Time},
			{metaNextRecord, int64(nextRecord)},
			{metaNextSuspended, int64(nextSuspended)},
		} {
			if err := s.w.setMeta(m.name, m.value); err != nil {
				return err
			}
		}
		crashpoint.At(crashpoint.CheckpointWritten)
		return nil
	})
	if err != nil {
		return doing(err, "commit position %d", b.Position)
	}
	crashpoint.At(crashpoint.CheckpointCommitted)
	*c = checkpoint{b.Position, b.Needed, nextRecord, nextSuspended, identities}
	s.outbox.extend(nextRecord)
	s.log.Debug("checkpoint committed", "position", b.Position, "records", len(b.Records),
		"next_record", nextRecord, "took", time.Since(begun))
	return nil
}

func (w *writer) putSessions(sessions []acct.SessionState) error {
	put := w.inserter("INSERT OR REPLACE INTO session (id, data)", 2, "")
	var ended []uint64
	var buf []byte // of the rows gathered; the driver copies at flush
	for i := range sessions {
		st := &sessions[i]
		if st.Ended {
			ended = append(ended, st.ID)
			continue
		}
		n := len(buf)
		buf = appendSession(buf, st)
		if err := put.add(int64(st.ID), buf[n:len(buf):len(buf)]); err != nil {
			return fmt.Errorf("session: %w", err)
		}
		if len(put.args) == 0 {
			buf = buf[:0]
		}
	}
	if err := put.flush(); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	if err := w.deleteIDs("DELETE FROM session WHERE id", ended); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

func (w *writer) addSuspended(rows []acct.Suspended) error {
	put := w.inserter("INSERT INTO suspended (id, exporter, domain, interval, records, octets, packets, reason, since, flow_end, source, position, flow)", 13, "")
	for i := range rows {
		r := &rows[i]
		err := put.add(int64(r.ID), r.Key.Exporter, int64(r.Key.Domain), r.Key.Interval,
			integer(r.Count.Records), integer(r.Count.Octets), integer(r.Count.Packets),
			r.Reason, r.Since, r.FlowEnd, r.Source, int64(r.Position), notNil(r.Flow))
		if err != nil {
			return fmt.Errorf("suspended: %w", err)
		}
	}
	if err := put.flush(); err != nil {
		return fmt.Errorf("suspended: %w", err)
	}
	return nil
}

func (w *writer) putState(states []acct.State) error {
	for _, st := range states {
		var err error
		if st.Value == nil {
			err = w.exec("DELETE FROM state WHERE kind = ? AND key = ?", st.Kind, st.Key)
		} else {
			err = w.exec("INSERT OR REPLACE INTO state (kind, key, value) VALUES (?, ?, ?)", st.Kind, st.Key, st.Value)
		}
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	return nil
}

// deleteIDs runs head for many IDs at once.
func (w *writer) deleteIDs(head string, ids []uint64) error {
	args := make([]any, 0, rowsPerStatement)
	for len(ids) > 0 {
		// Numbers short of a full statement repeat the last one.
		n := min(len(ids), rowsPerStatement)
		args = args[:0]
		for i := range rowsPerStatement {
			args = append(args, int64(ids[min(i, n-1)]))
		}
		if err := w.exec(head+in50, args...); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// in50 has rowsPerStatement parameters.
const in50 = " IN (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"

// Load returns the checkpoint, zero but for Epoch, HashKey and NextSuspended
// in a new spool.
func (s *Spool) Load(ctx context.Context) (acct.Checkpoint, error) {
	state, _ := s.files()
	var cp acct.Checkpoint
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		var err error
		cp, err = s.load(ctx, tx)
		return err
	})
	if err != nil {
		return acct.Checkpoint{}, doing(explain(state, err), "load")
	}
	return cp, nil
}

func (s *Spool) load(ctx context.Context, tx *sql.Tx) (acct.Checkpoint, error) {
	cp := acct.Checkpoint{Epoch: s.meta.Epoch, HashKey: s.meta.HashKey}
	position, err := metaNumber(ctx, tx, metaPosition)
	if err != nil {
		return cp, err
	}
	if cp.Time, err = metaNumber(ctx, tx, metaTime); err != nil {
		return cp, err
	}
	next, err := metaNumber(ctx, tx, metaNextSuspended)
	if err != nil {
		return cp, err
	}
	cp.Position, cp.NextSuspended = uint64(position), uint64(next)
	if err := eachSession(ctx, tx, func(st acct.SessionState) error {
		cp.Sessions = append(cp.Sessions, st)
		return nil
	}); err != nil {
		return cp, err
	}
	rows, err := tx.QueryContext(ctx, "SELECT kind, key, value FROM state ORDER BY kind, key")
	if err != nil {
		return cp, err
	}
	return cp, each(rows, func(rows *sql.Rows) error {
		var st acct.State
		if err := rows.Scan(&st.Kind, &st.Key, &st.Value); err != nil {
			return err
		}
		st.Value = notNil(st.Value)
		cp.State = append(cp.State, st)
		return nil
	})
}

// snapshot runs f in a read transaction of state.db: all that f reads is as
// of one moment, whatever is committed meanwhile.
func (s *Spool) snapshot(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback() // ends a transaction that wrote nothing
	return f(tx)
}

// eachSession visits the sessions in order of ID.
func eachSession(ctx context.Context, tx *sql.Tx, f func(acct.SessionState) error) error {
	rows, err := tx.QueryContext(ctx, "SELECT id, data FROM session ORDER BY id")
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var id int64
		var data []byte
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		st, err := parseSession(uint64(id), data)
		if err != nil {
			return err
		}
		return f(st)
	})
}

// EachSuspended visits the suspended Data Records whose ID is above after, in
// order of ID.
func (s *Spool) EachSuspended(ctx context.Context, after uint64, f func(acct.Suspended) error) error {
	state, _ := s.files()
	var visited error
	err := eachSuspended(ctx, s.r, after, func(r acct.Suspended) error {
		visited = f(r)
		return visited
	})
	if visited != nil {
		return visited
	}
	return explain(state, err)
}

func eachSuspended(ctx context.Context, q rowsQuerier, after uint64, f func(acct.Suspended) error) error {
	rows, err := q.QueryContext(ctx, `SELECT id, exporter, domain, interval, records, octets, packets, reason, since,
		flow_end, source, position, flow FROM suspended WHERE id > ? ORDER BY id`, integer(after))
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var r acct.Suspended
		err := rows.Scan(&r.ID, &r.Key.Exporter, &r.Key.Domain, &r.Key.Interval, &r.Count.Records, &r.Count.Octets,
			&r.Count.Packets, &r.Reason, &r.Since, &r.FlowEnd, &r.Source, &r.Position, &r.Flow)
		if err != nil {
			return err
		}
		return f(r)
	})
}

// EachIdentity visits the identities in order of exporter and bucket, in pieces
// of any size; several pieces may be of one bucket.
func (s *Spool) EachIdentity(ctx context.Context, f func(acct.Identities) error) error {
	state, _ := s.files()
	rows, err := s.r.QueryContext(ctx, "SELECT exporter, bucket, data FROM identity ORDER BY exporter, bucket, level DESC, id")
	if err != nil {
		return explain(state, err)
	}
	return each(rows, func(rows *sql.Rows) error {
		var i acct.Identities
		if err := rows.Scan(&i.Exporter, &i.Bucket, &i.Data); err != nil {
			return explain(state, err)
		}
		return f(i)
	})
}

// Needed returns the oldest journal position that must stay readable by the
// checkpoint: the journal may be trimmed below it.
func (s *Spool) Needed() uint64 {
	if s.w == nil {
		return 0
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.checkpoint.needed
}
