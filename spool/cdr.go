package spool

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tollbridge/asm/acct"
)

// CDRs are the accounting records that the accounting application received.
// Its methods are safe for use by any goroutines. It needs no lock of its own:
// nothing of cdr.db is kept in memory.
type CDRs struct {
	database
	salvaged *Salvage // by OpenCDRs; nil if the file was whole

	turn chan struct{} // held by the call that commits; capacity 1

	mu    sync.Mutex
	queue []*storing
}

// A storing is a call of Store that waits for its commit.
type storing struct {
	cdrs     []acct.CDR
	outcomes []acct.Outcome
	err      error
	done     chan struct{} // closed when the two above are set
}

func cdrFile(dir string) string { return filepath.Join(dir, "cdr.db") }

// OpenCDRs opens the CDRs in dir, which must exist, making the file if there
// is none.
func OpenCDRs(dir string) (*CDRs, error) {
	return soleOpener().cdrs(dir)
}

func (o *opener) cdrs(dir string) (*CDRs, error) {
	d, salvaged, err := o.openDatabase(cdrFile(dir), cdrPage, cdrSchema)
	if err != nil {
		return nil, err
	}
	return &CDRs{database: d, salvaged: salvaged, turn: make(chan struct{}, 1)}, nil
}

// Salvaged returns what OpenCDRs saved of a damaged file, nil if it was whole.
func (c *CDRs) Salvaged() *Salvage { return c.salvaged }

// OpenCDRsReadOnly opens the CDRs in dir for looking at them, beside a daemon
// or without one. Store returns ErrReadOnly.
func OpenCDRsReadOnly(dir string) (*CDRs, error) {
	d, err := openDatabaseReadOnly(cdrFile(dir), cdrSchema)
	if err != nil {
		return nil, err
	}
	return &CDRs{database: d}, nil
}

// Store stores CDRs, durably before it returns, and says of each what storing
// it came to. Calls of many goroutines share a commit: whoever finds nobody at
// it commits for all that wait.
//
// Neither cdrs nor what it points to may be changed before Store returns. When
// ctx ends before their commit began, nothing of cdrs is stored.
func (c *CDRs) Store(ctx context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	if c.w == nil {
		return nil, ErrReadOnly
	}
	if err := ctx.Err(); err != nil || len(cdrs) == 0 {
		return nil, err
	}
	s := &storing{cdrs: cdrs, done: make(chan struct{})}
	c.mu.Lock()
	c.queue = append(c.queue, s)
	c.mu.Unlock()
	select {
	case c.turn <- struct{}{}:
		c.mu.Lock()
		group := c.queue
		c.queue = nil
		c.mu.Unlock()
		c.commit(group)
		<-c.turn
	case <-s.done:
	case <-ctx.Done():
		c.mu.Lock()
		i := slices.Index(c.queue, s)
		if i >= 0 {
			c.queue = slices.Delete(c.queue, i, i+1)
		}
		c.mu.Unlock()
		if i >= 0 {
			return nil, ctx.Err()
		}
	}
	<-s.done // by this call's commit, or by the one that took it along
	return s.outcomes, s.err
}

// commit stores what all of group want in one transaction.
func (c *CDRs) commit(group []*storing) {
	if len(group) == 0 {
		return // a commit before took this call along
	}
	err := c.w.transact(func() error {
		var duplicates int64
		for _, s := range group {
			s.outcomes = make([]acct.Outcome, len(s.cdrs))
			n, err := c.w.storeCDRs(s.cdrs, s.outcomes)
			if err != nil {
				return err
			}
			duplicates += n
		}
		if duplicates == 0 {
			return nil
		}
		return c.w.exec(`INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value`,
			metaDuplicates, duplicates)
	})
	if err != nil {
		err = doing(err, "store CDRs")
	}
	for _, s := range group {
		if err != nil {
			s.outcomes, s.err = nil, err
		}
		close(s.done)
	}
}

// A storedCDR is one that a key led to.
type storedCDR struct {
	id        int64
	sessionID string
	number    uint32
	content   [32]byte
}

// storeCDRs stores cdrs within a transaction and fills in their outcomes. It
// returns the number of duplicates.
func (w *writer) storeCDRs(cdrs []acct.CDR, outcomes []acct.Outcome) (duplicates int64, err error) {
	put := w.inserter("INSERT INTO cdr (key, sum, "+cdrColumns+")", cdrColumnCount+2, "")
	keys := make([]int64, 0, rowsPerStatement)
	for base := 0; base < len(cdrs); base += rowsPerStatement {
		part := cdrs[base:min(base+rowsPerStatement, len(cdrs))]
		keys = keys[:0]
		for i := range part {
			keys = append(keys, cdrKey(part[i].SessionID, part[i].Number))
		}
		known, err := w.cdrsOf(keys)
		if err != nil {
			return 0, err
		}
		fresh := make(map[int64][]*acct.CDR, len(part)) // of this part, by key
		for i := range part {
			cdr := &part[i]
			same := func(s storedCDR) bool { return s.number == cdr.Number && s.sessionID == cdr.SessionID }
			if j := slices.IndexFunc(fresh[keys[i]], func(f *acct.CDR) bool {
				return f.Number == cdr.Number && f.SessionID == cdr.SessionID
			}); j >= 0 {
				// Twice in one part: the first must be in the table.
				if err := put.flush(); err != nil {
					return 0, err
				}
				if known, err = w.cdrsOf(keys); err != nil {
					return 0, err
				}
			}
			j := slices.IndexFunc(known[keys[i]], same)
			switch {
			case j < 0:
				if err := put.add(append([]any{keys[i], cdrSum(cdr)}, cdrValues(cdr)...)...); err != nil {
					return 0, err
				}
				fresh[keys[i]] = append(fresh[keys[i]], cdr)
				outcomes[base+i] = acct.Stored
			case known[keys[i]][j].content == cdr.Content:
				duplicates++
				outcomes[base+i] = acct.Duplicate
			default:
				if err := w.addConflict(known[keys[i]][j].id, cdr); err != nil {
					return 0, err
				}
				outcomes[base+i] = acct.Conflict
			}
		}
		if err := put.flush(); err != nil {
			return 0, err
		}
	}
	return duplicates, nil
}

// cdrsOf returns the stored CDRs of at most rowsPerStatement keys.
func (w *writer) cdrsOf(keys []int64) (map[int64][]storedCDR, error) {
	args := make([]any, rowsPerStatement)
	for i := range args {
		args[i] = keys[min(i, len(keys)-1)]
	}
	var known map[int64][]storedCDR
	err := w.query("SELECT id, key, session_id, number, content FROM cdr WHERE key"+in50, func(rows *sql.Rows) error {
		var key int64
		var s storedCDR
		var content sql.RawBytes
		if err := rows.Scan(&s.id, &key, &s.sessionID, &s.number, &content); err != nil {
			return err
		}
		copy(s.content[:], content)
		if known == nil {
			known = make(map[int64][]storedCDR)
		}
		known[key] = append(known[key], s)
		return nil
	}, args...)
	return known, err
}

func (w *writer) addConflict(first int64, cdr *acct.CDR) error {
	return w.exec("INSERT INTO conflict (first, times, "+cdrColumns+`) VALUES (?, 1, ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (first, content) DO UPDATE SET times = times + 1`, append([]any{first}, cdrValues(cdr)...)...)
}

const (
	cdrColumns = `session_id, number, type, user_name, input_octets, output_octets, input_packets, output_packets,
	session_time, event, at, multi_session_id, origin_host, origin_realm, retransmitted, content, avps,
	corrects, corrects_number, credit, reason`
	cdrColumnCount = 21
)

func cdrValues(c *acct.CDR) []any {
	var corrects acct.Correction
	if c.Corrects != nil {
		corrects = *c.Corrects
	}
	return []any{c.SessionID, int64(c.Number), int64(c.Type), c.User,
		integer(c.Usage.InputOctets), integer(c.Usage.OutputOctets), integer(c.Usage.InputPackets), integer(c.Usage.OutputPackets),
		c.SessionTime.Milliseconds(), unixMilli(c.Event), unixMilli(c.At), c.MultiSessionID, c.OriginHost, c.OriginRealm,
		c.Retransmitted, c.Content[:], notNil(c.AVPs), corrects.SessionID, int64(corrects.Number), corrects.Credit, corrects.Reason}
}

// unixMilli returns t in milliseconds, the zero time as 0.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// scanCDR reads cdrColumns, after what to says.
func scanCDR(rows *sql.Rows, c *acct.CDR, to ...any) error {
	var milli, event, at int64
	var content sql.RawBytes
	var corrects acct.Correction
	err := rows.Scan(append(to, &c.SessionID, &c.Number, &c.Type, &c.User,
		&c.Usage.InputOctets, &c.Usage.OutputOctets, &c.Usage.InputPackets, &c.Usage.OutputPackets,
		&milli, &event, &at, &c.MultiSessionID, &c.OriginHost, &c.OriginRealm, &c.Retransmitted, &content, &c.AVPs,
		&corrects.SessionID, &corrects.Number, &corrects.Credit, &corrects.Reason)...)
	if err != nil {
		return err
	}
	if corrects != (acct.Correction{}) {
		c.Corrects = &corrects
	}
	c.SessionTime = time.Duration(milli) * time.Millisecond
	c.Event, c.At = fromMilli(event), fromMilli(at)
	if copy(c.Content[:], content) != len(c.Content) {
		return errors.New("content digest of other than 32 octets")
	}
	return nil
}
