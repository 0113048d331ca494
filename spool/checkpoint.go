package spool

import (
	"context"
	"database/sql"
	"errors"
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
	at, err := s.readCheckpoint(ctx, s.r, c)
	if err != nil {
		return explain(s.w.file, err)
	}
	s.time = at
	if err := resumable(ctx, s.r); err != nil {
		return &fileError{file: s.w.file, is: ErrDamaged, advice: restore(s.w.file), err: err}
	}
	c.identities, err = loadIdentities(ctx, s.r, s.w.file)
	return err
}

// resumable says what is wrong with a checkpoint behind the journal's beginning
// of which the pipeline's state is gone.
func resumable(ctx context.Context, q querier) error {
	var lost bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM meta WHERE name = ? AND value > 0)
		AND NOT EXISTS (SELECT 1 FROM state WHERE kind = ? AND length(value) > 0)`, metaPosition, acct.StatePipeline).Scan(&lost)
	if err != nil {
		return err
	}
	if lost {
		return errors.New("where the pipeline stands can't be read any more")
	}
	return nil
}

// readCheckpoint reads the numbers of the stored checkpoint into c and returns
// its time.
func (s *Spool) readCheckpoint(ctx context.Context, q querier, c *checkpoint) (at int64, err error) {
	for _, m := range []struct {
		name string
		to   *uint64
	}{
		{metaPosition, &c.position},
		{metaNeeded, &c.needed},
		{metaNextRecord, &c.nextRecord},
		{metaNextSuspended, &c.nextSuspended},
	} {
		v, err := metaNumber(ctx, q, m.name)
		if err != nil {
			return 0, err
		}
		*m.to = uint64(v)
	}
	if at, err = metaNumber(ctx, q, metaTime); err != nil {
		return 0, err
	}
	sum, err := metaNumber(ctx, q, metaSum)
	if err != nil {
		return 0, err
	}
	if sum != 0 && sum != c.sum(at) { // one of an earlier version has none
		return 0, fmt.Errorf("the checkpoint's numbers, position %d: %w", c.position, ErrDamaged)
	}
	return at, nil
}

// sum is the checksum of the checkpoint's numbers, never 0.
func (c *checkpoint) sum(at int64) int64 {
	s := new(summer).number(c.position).number(c.needed).number(c.nextRecord).number(c.nextSuspended).number(uint64(at))
	return int64(s.crc) + 1
}

// putCheckpoint stores the numbers of c, within a transaction.
func (w *writer) putCheckpoint(c *checkpoint, at int64) error {
	for _, m := range []struct {
		name  string
		value int64
	}{
		{metaPosition, int64(c.position)},
		{metaNeeded, int64(c.needed)},
		{metaTime, at},
		{metaNextRecord, int64(c.nextRecord)},
		{metaNextSuspended, int64(c.nextSuspended)},
		{metaSum, c.sum(at)},
	} {
		if err := w.setMeta(m.name, m.value); err != nil {
			return err
		}
	}
	return nil
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
		next := checkpoint{position: b.Position, needed: b.Needed, nextRecord: nextRecord, nextSuspended: nextSuspended}
		if err := s.w.putCheckpoint(&next, b.Time); err != nil {
			return err
		}
		crashpoint.At(crashpoint.CheckpointWritten)
		return nil
	})
	if err != nil {
		return doing(err, "commit position %d", b.Position)
	}
	crashpoint.At(crashpoint.CheckpointCommitted)
	*c, s.time = checkpoint{b.Position, b.Needed, nextRecord, nextSuspended, identities}, b.Time
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
	put := w.inserter("INSERT INTO suspended (id, exporter, domain, interval, records, octets, packets, reason, since, flow_end, source, position, flow, sum)", 14, "")
	for i := range rows {
		r := &rows[i]
		err := put.add(int64(r.ID), r.Key.Exporter, int64(r.Key.Domain), r.Key.Interval,
			integer(r.Count.Records), integer(r.Count.Octets), integer(r.Count.Packets),
			r.Reason, r.Since, r.FlowEnd, r.Source, int64(r.Position), notNil(r.Flow), suspendedSum(r))
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
			err = w.exec("INSERT OR REPLACE INTO state (kind, key, value, sum) VALUES (?, ?, ?, ?)", st.Kind, st.Key, st.Value, stateSum(&st))
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
	state := s.state()
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
	var c checkpoint
	var err error
	if cp.Time, err = s.readCheckpoint(ctx, tx, &c); err != nil {
		return cp, err
	}
	cp.Position, cp.NextSuspended = c.position, c.nextSuspended
	if err := eachSession(ctx, tx, 0, func(st acct.SessionState, damage error) error {
		if damage != nil {
			s.lost("session", damage)
			return nil
		}
		cp.Sessions = append(cp.Sessions, st)
		return nil
	}); err != nil {
		return cp, err
	}
	rows, err := tx.QueryContext(ctx, "SELECT kind, key, value, sum FROM state ORDER BY kind, key")
	if err != nil {
		return cp, err
	}
	return cp, s.eachState(rows, func(st acct.State) error {
		cp.State = append(cp.State, st)
		return nil
	})
}

// EachState visits the states of some kinds, as of the latest checkpoint, kind
// by kind in order of their keys. What is damaged is logged and left out.
func (s *Spool) EachState(ctx context.Context, kinds []string, visit func(acct.State) error) error {
	state := s.state()
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		for _, kind := range kinds {
			rows, err := tx.QueryContext(ctx, "SELECT kind, key, value, sum FROM state WHERE kind = ? ORDER BY key", kind)
			if err == nil {
				err = s.eachState(rows, visit)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return doing(explain(state, err), "read states")
	}
	return nil
}

func (s *Spool) eachState(rows *sql.Rows, visit func(acct.State) error) error {
	return each(rows, func(rows *sql.Rows) error {
		var st acct.State
		var sum sql.NullInt64
		if err := rows.Scan(&st.Kind, &st.Key, &st.Value, &sum); err != nil {
			return err
		}
		st.Value = notNil(st.Value)
		if sum.Valid && sum.Int64 != stateSum(&st) {
			err := fmt.Errorf("state %s %s, %d octets: %w", st.Kind, st.Key, len(st.Value), ErrDamaged)
			if st.Kind == acct.StatePipeline {
				return err // nothing can be resumed without it
			}
			s.lost("state", err)
			return nil
		}
		return visit(st)
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

// lost says that part of the state is damaged and passed over. The row stays
// where it is, and the books do not balance for what it held.
func (s *Spool) lost(what string, damage error) {
	s.log.Error("part of the state is damaged and left out", "what", what, "error", damage)
}

// eachSession visits the sessions from an ID on, in order. Of a damaged one only
// the ID is known.
func eachSession(ctx context.Context, q rowsQuerier, from uint64, f func(st acct.SessionState, damage error) error) error {
	rows, err := q.QueryContext(ctx, "SELECT id, data FROM session WHERE id >= ? ORDER BY id", integer(from))
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var id int64
		var data []byte
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		return f(parseSession(uint64(id), data))
	})
}

// EachSuspended visits the suspended Data Records whose ID is above after, in
// order of ID.
func (s *Spool) EachSuspended(ctx context.Context, after uint64, f func(acct.Suspended) error) error {
	state := s.state()
	var visited error
	err := eachSuspended(ctx, s.r, after, func(r acct.Suspended, damage error) error {
		if damage != nil {
			s.lost("suspended flow", damage)
			return nil
		}
		visited = f(r)
		return visited
	})
	if visited != nil {
		return visited
	}
	return explain(state, err)
}

func eachSuspended(ctx context.Context, q rowsQuerier, after uint64, f func(r acct.Suspended, damage error) error) error {
	rows, err := q.QueryContext(ctx, `SELECT id, exporter, domain, interval, records, octets, packets, reason, since,
		flow_end, source, position, flow, sum FROM suspended WHERE id > ? ORDER BY id`, integer(after))
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var r acct.Suspended
		var sum sql.NullInt64
		err := rows.Scan(&r.ID, &r.Key.Exporter, &r.Key.Domain, &r.Key.Interval, &r.Count.Records, &r.Count.Octets,
			&r.Count.Packets, &r.Reason, &r.Since, &r.FlowEnd, &r.Source, &r.Position, &r.Flow, &sum)
		if err != nil {
			return err
		}
		if sum.Valid && sum.Int64 != suspendedSum(&r) {
			return f(r, fmt.Errorf("suspended flow %d, %s of exporter %q: %w", r.ID, r.Source, r.Key.Exporter, ErrDamaged))
		}
		return f(r, nil)
	})
}

// EachIdentity visits the identities in order of exporter and bucket, in pieces
// of any size; several pieces may be of one bucket.
func (s *Spool) EachIdentity(ctx context.Context, f func(acct.Identities) error) error {
	state := s.state()
	rows, err := s.r.QueryContext(ctx, "SELECT exporter, bucket, data FROM identity ORDER BY exporter, bucket, level DESC, id")
	if err != nil {
		return explain(state, err)
	}
	return each(rows, func(rows *sql.Rows) error {
		var i acct.Identities
		if err := rows.Scan(&i.Exporter, &i.Bucket, &i.Data); err != nil {
			return explain(state, err)
		}
		var err error
		if i.Data, err = openIdentities(i.Bucket, i.Data); err != nil {
			s.lost("identities", err)
			return nil
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
