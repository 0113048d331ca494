package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/crashpoint"
)

// Crash argument.
//
// A group is one row, written and committed in one SQLite transaction with
// synchronous=FULL: the WAL is synced before COMMIT returns. So after a crash,
// of the process or of the machine, a group is there whole or not at all, and
// every group that COMMIT returned for is there: SQLite replays the WAL up to
// the last commit whose frames have their checksum.
//
// An entry is called durable (Wait returns, a Reader gets it) only after that
// COMMIT. Groups are committed in order of position by one goroutine, each
// transaction holding all groups sealed before it, so what is durable is
// always a prefix of what was appended: no hole can be followed by an entry.
//
// After a restart positions go on behind the highest ever stored: of the
// groups, of those set aside, of those trimmed (meta row, written in the
// transaction that deletes them), and of the checkpoint in state.db. A position
// that was appended but not durable may be given again, to another entry; no
// one has been told of the first.
//
// A COMMIT that fails keeps its groups in memory. They are written again under
// the same positions (INSERT OR REPLACE), whether or not the failed one reached
// the disk after all: by the same Run where the failure may pass, and else by
// the next.
//
// SQLite does not check what it reads. So each group ends in a checksum over
// its octets and its position; a group that fails it is moved to table damaged
// and reading goes on behind it.

// ErrTrimmed says that a position was trimmed from the journal. It matches
// acct.ErrNoEntry.
var ErrTrimmed = fmt.Errorf("trimmed: %w", acct.ErrNoEntry)

// A Journal is the ordered record of all that can change an accounting record.
// Its methods are safe for use by any goroutines.
//
//	Append ─► open group ─► sealed groups ─► Run: one transaction ─► recent groups ─► Readers
//	                                              journal.db ─────────────────────►
type Journal struct {
	cfg  Config
	log  *slog.Logger
	w    *writer // nil when read only
	r    *sql.DB
	file string

	kick chan struct{} // something to commit; capacity 1

	mu      sync.Mutex
	room    sync.Cond     // held has fallen, or err has changed
	changed chan struct{} // closed when durable or err changes
	err     error         // why nothing can be appended
	running bool
	closed  bool
	next    uint64 // position of the next entry
	durable uint64 // the last durable position
	open    *group // takes appends; nil when there is none
	sealed  []*group
	held    int      // octets appended but not durable
	mark    string   // why Messages wait; "" if they do not
	recent  []*group // durable, ascending, the newest ones
	kept    int      // octets of recent
	rooms   [][]byte // of dropped groups, to be used again
	trimmed uint64
	cached  *group // last group that Read took from the disk
	stats   JournalStats
}

// JournalStats counts what a Journal has done since it was opened.
type JournalStats struct {
	First, Last   uint64 // positions that can be read; First > Last when there are none
	Entries       uint64 // made durable
	Octets        uint64 // of groups made durable
	Groups        uint64
	Held          int    // octets that wait to be made durable
	FromDisk      uint64 // groups that readers took from the disk
	DamagedGroups uint64 // set aside
	Full          bool   // the disk is full; appending waits
	Waits         error  // why the latest commit failed that is being tried again; nil if none is
}

// openJournal reads where the journal stands. Positions go on behind after.
func openJournal(w *writer, r *sql.DB, file string, after uint64, cfg Config) (*Journal, error) {
	j := &Journal{cfg: cfg, log: cfg.Log, w: w, r: r, file: file,
		kick: make(chan struct{}, 1), changed: make(chan struct{})}
	j.room.L = &j.mu
	ctx := context.Background()
	trimmed, err := metaNumber(ctx, r, metaTrimmed)
	if err != nil {
		return nil, explain(file, err)
	}
	var last, aside sql.NullInt64
	err = r.QueryRowContext(ctx, "SELECT (SELECT max(last) FROM journal_group), (SELECT max(last) FROM damaged)").Scan(&last, &aside)
	if err != nil {
		return nil, explain(file, err)
	}
	stored := uint64(max(last.Int64, aside.Int64, trimmed))
	if stored < after && w != nil {
		j.log.Warn("journal ends before the checkpoint: it was lost or is older than state.db",
			"journal_position", stored, "checkpoint_position", after)
	}
	if w != nil {
		if err := w.measure("SELECT coalesce(sum(length(data)), 0) FROM journal_group"); err != nil {
			return nil, err
		}
	}
	j.trimmed = uint64(trimmed)
	j.durable = max(stored, after)
	j.next = j.durable + 1
	return j, nil
}

// Append puts an entry at the end of the journal and returns its position,
// before it is durable (see Wait). It copies data. at is the entry's time in
// Unix nanoseconds, session the position of its Transport Session's EntryOpen.
//
// While Config.Memory octets wait to be made durable Append blocks, also for
// as long as the disk is full or fails; a Message also while Held says so. It fails when
// Run has failed or ended.
func (j *Journal) Append(kind acct.EntryKind, at int64, session uint64, data []byte) (uint64, error) {
	need := len(data) + entryOverhead
	j.mu.Lock()
	for j.err == nil && (j.held > 0 && j.held+need > j.cfg.Memory || j.mark != "" && waits(kind)) {
		if j.open != nil { // nobody can add to it: it need not wait for company
			j.sealLocked()
			j.wake()
		}
		j.room.Wait()
	}
	if err := j.err; err != nil {
		j.mu.Unlock()
		return 0, err
	}
	g := j.open
	if g != nil && len(g.octets)+need > j.cfg.GroupSize {
		j.sealLocked()
		g = nil
	}
	begun := g == nil
	if begun {
		g = newGroup(j.next, at, j.roomLocked(need))
		j.open = g
	}
	before := len(g.octets)
	if begun {
		before = 0
	}
	g.append(kind, at, session, data)
	j.held += len(g.octets) - before
	position := j.next
	j.next++
	full := len(g.octets) >= j.cfg.GroupSize
	if full {
		j.sealLocked()
	}
	j.mu.Unlock()
	if begun || full {
		j.wake()
	}
	return position, nil
}

// roomLocked returns where a new group with an entry of need octets begins: what
// a dropped one has left, or new memory. Its size is guessed from the group
// before, so that a quiet journal does not allocate a whole group for each
// message.
func (j *Journal) roomLocked(need int) []byte {
	guess := 4096
	if n := len(j.sealed); n > 0 {
		guess = len(j.sealed[n-1].octets)
	} else if n := len(j.recent); n > 0 {
		guess = len(j.recent[n-1].octets)
	}
	size := max(min(guess+guess/4, j.cfg.GroupSize+groupTrailer), groupHeader+need+groupTrailer)
	if n := len(j.rooms); n > 0 && cap(j.rooms[n-1]) >= size {
		room := j.rooms[n-1]
		j.rooms = j.rooms[:n-1]
		return room
	}
	return make([]byte, 0, size)
}

// maxRooms is how many dropped groups' octets are kept to be used again.
const maxRooms = 16

// dropLocked lets go of a group that is out of recent.
func (j *Journal) dropLocked(g *group) {
	g.dropped = true
	if g.readers == 0 && len(j.rooms) < maxRooms && cap(g.octets) >= j.cfg.GroupSize {
		j.rooms = append(j.rooms, g.octets[:0])
	}
}

func (j *Journal) sealLocked() {
	j.sealed = append(j.sealed, j.open)
	j.open = nil
}

func (j *Journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// Run commits what is appended: as soon as a group is full, and otherwise
// Config.MaxDelay after the first entry that waits. It returns nil after ctx
// ends, when all that was appended is durable; Append fails from then on.
//
// It waits and tries again while the disk is full or fails, or another program
// has the database locked. Any other failure to commit ends it; Append and Wait return that error until Run is called again, which
// takes up the entries that wait.
func (j *Journal) Run(ctx context.Context) error {
	if err := j.begin(); err != nil {
		return err
	}
	delay := time.NewTimer(j.cfg.MaxDelay)
	defer delay.Stop()
	for {
		select {
		case <-ctx.Done():
			return j.end(ctx)
		case <-j.kick:
		}
		if j.filling() {
			delay.Reset(j.cfg.MaxDelay)
		gather:
			for {
				select {
				case <-ctx.Done():
					return j.end(ctx)
				case <-delay.C:
					break gather
				case <-j.kick:
					if !j.filling() {
						break gather
					}
				}
			}
		}
		if err := j.flush(ctx); err != nil {
			return j.fail(err)
		}
	}
}

func (j *Journal) begin() error {
	if j.w == nil {
		return ErrReadOnly
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("spool: journal: %w", ErrClosed)
	}
	if j.running {
		return errors.New("spool: journal runs already")
	}
	j.running, j.err = true, nil
	if j.open != nil || len(j.sealed) > 0 {
		j.wake()
	}
	return nil
}

// filling reports whether there is an open group and no sealed one: then it is
// worth to wait for more.
func (j *Journal) filling() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open != nil && len(j.sealed) == 0
}

// end commits what is left and stops the journal.
func (j *Journal) end(ctx context.Context) error {
	for {
		if err := j.flush(ctx); err != nil {
			return j.fail(err)
		}
		j.mu.Lock()
		done := j.open == nil && len(j.sealed) == 0
		if done {
			j.running = false
			j.stopLocked(fmt.Errorf("spool: journal: %w", ErrClosed))
		}
		j.mu.Unlock()
		if done {
			return nil
		}
	}
}

// fail stops the journal with err and returns it.
func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running = false
	if err := j.err; err != nil {
		return err // closed meanwhile: that is the reason
	}
	j.stopLocked(err)
	return err
}

func (j *Journal) stopLocked(err error) {
	j.err = err
	j.room.Broadcast()
	close(j.changed)
	j.changed = make(chan struct{})
}

// close makes every further call fail.
func (j *Journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.stopLocked(fmt.Errorf("spool: journal: %w", ErrClosed))
}

// retryAfter is how long Run waits before it tries again what may pass.
const retryAfter = time.Second

// flush commits all that is appended by now, waiting out what may pass. On an
// error nothing of it is lost: it stays sealed.
func (j *Journal) flush(ctx context.Context) error {
	j.mu.Lock()
	if j.open != nil {
		j.sealLocked()
	}
	groups := j.sealed
	j.sealed = nil
	j.mu.Unlock()
	if len(groups) == 0 {
		return nil
	}
	for _, g := range groups {
		g.seal()
	}
	for {
		err := j.commit(groups)
		if err == nil {
			return nil
		}
		if !passes(err) || ctx.Err() != nil || !j.waitOut(ctx, err) {
			for _, g := range groups {
				g.octets = g.octets[:len(g.octets)-groupTrailer] // sealed again by the next flush
			}
			j.mu.Lock()
			j.sealed = append(groups, j.sealed...)
			j.mu.Unlock()
			return err
		}
	}
}

// waitOut says why a commit failed, once, and waits before the next try. When
// ctx ended there is one more; it returns false where none is of use.
func (j *Journal) waitOut(ctx context.Context, err error) bool {
	j.mu.Lock()
	again := j.stats.Waits != nil
	j.stats.Waits, j.stats.Full = err, errors.Is(err, ErrFull)
	closed := j.err != nil
	j.mu.Unlock()
	if closed {
		return false
	}
	if !again {
		j.log.Error("journal waits: what can wait upstream does, the rest is lost and counted there", "error", err)
	}
	t := time.NewTimer(retryAfter)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}

// commit stores sealed groups in one transaction and tells whoever waits.
func (j *Journal) commit(groups []*group) error {
	err := j.w.transact(func() error {
		for _, g := range groups {
			err := j.w.exec("INSERT OR REPLACE INTO journal_group (last, first, time, data) VALUES (?, ?, ?, ?)",
				int64(g.last()), int64(g.first), g.begun(), g.octets)
			if err != nil {
				return err
			}
			j.w.grown += int64(len(g.octets))
		}
		return nil
	})
	if err != nil {
		return doing(err, "commit journal positions %d to %d", groups[0].first, groups[len(groups)-1].last())
	}
	crashpoint.At(crashpoint.JournalCommitted)

	first, last := groups[0].first, groups[len(groups)-1].last()
	octets := 0
	for _, g := range groups {
		octets += len(g.octets)
	}
	j.mu.Lock()
	j.durable = last
	j.held -= octets - len(groups)*groupTrailer
	j.recent = append(j.recent, groups...)
	j.kept += octets
	drop := 0
	for j.kept > j.cfg.Recent && drop < len(j.recent)-1 {
		j.kept -= len(j.recent[drop].octets)
		j.dropLocked(j.recent[drop])
		drop++
	}
	if drop > 0 {
		n := copy(j.recent, j.recent[drop:])
		clear(j.recent[n:])
		j.recent = j.recent[:n]
	}
	j.stats.Entries += last - first + 1
	j.stats.Octets += uint64(octets)
	j.stats.Groups += uint64(len(groups))
	recovered := j.stats.Waits != nil
	j.stats.Waits, j.stats.Full = nil, false
	close(j.changed)
	j.changed = make(chan struct{})
	j.room.Broadcast()
	j.mu.Unlock()

	if recovered {
		j.log.Info("journal goes on")
	}
	j.log.Debug("journal group committed", "first", first, "last", last, "octets", octets)
	return nil
}

// Wait returns nil when position is durable. It returns the error of a Run
// that failed or ended before, or ctx's.
func (j *Journal) Wait(ctx context.Context, position uint64) error {
	for {
		j.mu.Lock()
		durable, err, changed := j.durable, j.err, j.changed
		j.mu.Unlock()
		if position <= durable {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Durable returns the last durable position, 0 for none.
func (j *Journal) Durable() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.durable
}

// Appended returns the last position that Append has given out, durable or
// not; 0 for none.
func (j *Journal) Appended() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next - 1
}

// Stats returns a snapshot.
func (j *Journal) Stats() JournalStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.First, s.Last, s.Held = j.trimmed+1, j.durable, j.held
	return s
}
