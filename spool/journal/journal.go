// Package journal is the ordered record of all that can change an accounting
// record, in append-only files of one directory:
//
//	EPOCH-SERIAL-FIRST-SALT.segment  groups of entries, in the order of their positions
//	FIRST-LAST.damaged               what was found in the place of those positions, for people
//	lease                            the epoch of who may write
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/crashpoint"
)

// Crash argument.
//
// What is durable. Groups are appended to the latest segment in order of their
// positions, by one goroutine: all that are sealed, then one fdatasync, then a
// look at the lease. Only after that is an entry called durable (Wait returns, a
// Reader gets it). So what is durable is a prefix of what was appended. A segment
// is begun by its name alone, and that, in its directory, is durable before a
// group is written to it. Each begins at a sector that held nothing before, so
// nothing that is durable is ever written again.
//
// After a crash, of the process or of the machine, the latest segment may end in
// frames that were being written, whole or not, in any order, and in zeros. It is
// read up to the first frame that fails its check: all that was durable lies
// before that, since frames do not overlap. What is whole behind what was durable
// was appended, in order, by us, and no one has been told of it, so to keep it and
// to cut it off are both right; it is kept. A frame that fails though one behind it
// says that it was durable is damage, not the end.
//
// What is read so may be in the kernel's memory alone, or, where an fdatasync
// failed, never get to the disk. So all that no later frame says to be durable is
// written and synced again, into the first segment of whoever opens the journal,
// before that segment has its name, and so before it bounds what was found to what
// was certain. Until then the one found counts, from then on the new one. Nothing
// is appended behind what was torn, and older segments need not be read to be
// bounded.
//
// Positions go on behind the highest ever stored, which the latest segment's name
// and frames say, and behind the checkpoint's in state.db. The latest segment is
// never deleted. A position that was appended but not durable may be given again,
// to another entry; no one has been told of the first.
//
// A write or an fdatasync that fails says nothing of what reached the disk, and
// the next one may succeed without having tried again, since the kernel takes
// pages that it failed to write for clean. So that segment is written no more. Its
// groups are still in memory and go, with the same positions, into a new one,
// whose name bounds the other to what was durable.
//
// Old segments are deleted whole, from the oldest on, the directory synced after
// each, so what is left is without a gap. Nothing else is changed in place or
// reused, and the file's name is part of each checksum: zeros, and what another
// file left on the disk, are not taken for frames.
//
// Who may write. A holder of the lease looks after each fdatasync, and before it
// calls anything durable, whether the lease is still its own. Who replaces it
// takes the lease first, durably, and then looks for the end. If the old holder
// found the lease its own, that look was before the taking, and so was its write:
// who replaces it finds the group. If not, the old holder calls nothing durable
// any more, whatever it still writes: frames behind the end that was found, and
// segments of its epoch with positions behind it, are bounded by the first segment
// of the new epoch, for whoever reads. A segment that it begins before that one is
// empty, or repeats what the one before has, and goes again. Files of another epoch
// are never written to, nor cut; only such are deleted of which, by that bound,
// nothing counts, and only while the journal is opened, when nobody can take the
// lease. An old holder that deletes what it may trim deletes only what is below a
// checkpoint.
//
// The disk may give out something else than was written. So each frame and each
// group ends in a checksum; what fails it is set aside, with the positions that it
// held, and reading goes on behind it. That is not seen of the last groups before
// a crash, which look like torn ones.

// A Config sets up a Journal.
type Config struct {
	GroupSize int           // octets of a group; required
	Segment   int64         // octets of a segment, but for one larger group; 0 means 32 MiB
	MaxDelay  time.Duration // how long an entry waits for company
	Memory    int           // octets that may wait to be made durable; required
	Recent    int           // octets of durable groups kept in memory for readers
	Epoch     uint64        // of the lease, which was taken
	Fenced    func()        // told when another has the lease; nil for nobody
	After     uint64        // positions go on behind it
	Log       *slog.Logger  // required
}

const segmentSize = 32 << 20

// A Journal is open for writing, or for looking at it. Its methods are safe for
// use by any goroutines.
//
//	Append ─► open group ─► sealed groups ─► Run: write, one fdatasync ─► recent groups ─► Readers
//	                                              segments ───────────────────────────►
type Journal struct {
	cfg   Config
	log   *slog.Logger
	dir   string
	disk  *disk
	lease *lease // nil when read only

	kick chan struct{} // something to commit; capacity 1

	out    *output // what Run writes to; nil when that has to be a new one
	latest name    // of the segment that was begun last, also if it is gone

	certain place // where, when it was opened, what was durable for certain ended

	trimming sync.Mutex // one at a time
	removed  bool       // a segment, and its directory is not synced; guarded by trimming

	mu       sync.Mutex
	room     sync.Cond     // held has fallen, or err has changed
	changed  chan struct{} // closed when durable or err changes
	err      error         // why nothing can be appended
	running  bool
	closed   bool
	next     uint64 // position of the next entry
	durable  uint64 // the last durable position
	open     *group // takes appends; nil when there is none
	sealed   []*group
	held     int        // octets appended but not durable
	mark     string     // why Messages wait; "" if they do not
	recent   []*group   // durable, ascending, the newest ones
	kept     int        // octets of recent
	rooms    [][]byte   // of dropped groups, to be used again
	usual    int        // octets of the largest of the latest groups, the older the less
	segments []*segment // ascending
	aside    []span     // ascending
	trimmed  uint64
	cached   *group // last group that Read took from the disk
	stats    Stats
}

// Stats counts what a Journal has done since it was opened.
type Stats struct {
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
	if g != nil && len(g.frame)+need > j.cfg.GroupSize {
		j.sealLocked()
		g = nil
	}
	begun := g == nil
	if begun {
		g = newGroup(j.next, at, j.roomLocked(need))
		j.open = g
	}
	before := len(g.frame)
	if begun {
		before = 0
	}
	g.append(kind, at, session, data)
	j.held += len(g.frame) - before
	position := j.next
	j.next++
	full := len(g.frame) >= j.cfg.GroupSize
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
// a dropped one has left, or new memory. Its size is guessed from the groups
// before, so that a quiet journal does not allocate a whole group for each
// message.
func (j *Journal) roomLocked(need int) []byte {
	size := max(min(j.usual+j.usual/4, j.cfg.GroupSize), frameHeader+groupHeader+need) + groupTrailer + sector
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
	if g.readers == 0 && len(j.rooms) < maxRooms && cap(g.frame) >= j.cfg.GroupSize {
		j.rooms = append(j.rooms, g.frame[:0])
	}
}

func (j *Journal) sealLocked() {
	j.usual = max(len(j.open.frame), j.usual-j.usual/8)
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
// It waits and tries again while the disk is full or fails. Any other failure to
// commit ends it; Append and Wait return that error until Run is called again,
// which takes up the entries that wait.
func (j *Journal) Run(ctx context.Context) error {
	if err := j.start(); err != nil {
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

func (j *Journal) start() error {
	if j.lease == nil {
		return ErrReadOnly
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	if j.running {
		return errors.New("journal: runs already")
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
			j.stopLocked(errClosed)
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
	for len(groups) > 0 {
		n, err := j.commit(groups)
		groups = groups[n:]
		if err != nil && (!passes(err) || ctx.Err() != nil || !j.waitOut(ctx, err)) {
			for _, g := range groups {
				g.unseal() // sealed again by the next flush
			}
			j.mu.Lock()
			j.sealed = append(groups, j.sealed...)
			j.mu.Unlock()
			return err
		}
	}
	return nil
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

// commit makes durable as many of the sealed groups as fit into one segment, tells
// whoever waits, and returns how many those are.
func (j *Journal) commit(groups []*group) (n int, err error) {
	first := groups[0].first
	if err := j.roll(padded(len(groups[0].frame))); err != nil {
		return 0, fmt.Errorf("journal: commit positions from %d: %w", first, err)
	}
	need := int64(0)
	for _, g := range groups {
		size := padded(len(g.frame))
		if n > 0 && j.out.at+need+size > j.cfg.Segment {
			break
		}
		need += size
		n++
	}
	groups = groups[:n]
	last := groups[n-1].last()
	if err := j.store(groups, need); err != nil {
		return 0, fmt.Errorf("journal: commit positions %d to %d: %w", first, last, err)
	}
	crashpoint.At(crashpoint.JournalCommitted)

	octets := 0
	for _, g := range groups {
		octets += len(g.frame)
	}
	j.mu.Lock()
	j.durable = last
	j.out.grow(groups)
	j.held -= octets - len(groups)*groupTrailer
	j.recent = append(j.recent, groups...)
	j.kept += octets
	drop := 0
	for j.kept > j.cfg.Recent && drop < len(j.recent)-1 {
		j.kept -= len(j.recent[drop].frame)
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
	return n, nil
}

// roll sees to it that there is a segment with room for so many octets.
func (j *Journal) roll(octets int64) error {
	if j.out != nil {
		if j.out.at == 0 || j.out.at+octets <= j.cfg.Segment {
			return nil
		}
		j.disk.finish(j.out)
		j.out = nil
	}
	j.mu.Lock()
	first := j.durable + 1
	j.mu.Unlock()
	return j.begin(first, nil)
}

// begin makes a segment in which positions from first on count, and that begins
// with groups. It is the latest from then on. Where the lease is another's it is
// taken back: who has that may have trimmed these positions, and to who opens the
// journal next they would be there again.
func (j *Journal) begin(first uint64, groups []*group) error {
	j.latest = j.latest.next(j.cfg.Epoch, first)
	out, err := j.disk.begin(j.latest, groups)
	if err != nil {
		return err
	}
	if err := j.lease.check(); err != nil {
		j.disk.abandon(out)
		return errors.Join(err, os.Remove(out.path))
	}
	j.mu.Lock()
	out.grow(groups)
	j.segments = append(j.segments, out.segment)
	j.mu.Unlock()
	j.out = out
	return nil
}

// store writes groups, which need so many octets, syncs them, and looks at the
// lease. Where that fails the segment is not written any more.
func (j *Journal) store(groups []*group, need int64) error {
	err := j.disk.reserve(j.out, need)
	if err != nil && errors.Is(err, ErrFull) {
		return err // nothing was tried
	}
	for _, g := range groups {
		if err == nil {
			err = j.disk.write(j.out, g)
		}
	}
	if err == nil {
		err = j.out.sync()
	}
	if err == nil {
		err = j.lease.check()
	}
	if err != nil {
		j.disk.abandon(j.out)
		j.drop(j.out)
		j.out = nil
	}
	return err
}

// drop removes a segment that could not be written, if nothing in it is durable and
// it is not the only one, so that a disk that fails for long is not full of them.
func (j *Journal) drop(o *output) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.segments); o.synced == 0 && n > 1 && os.Remove(o.path) == nil {
		j.segments = j.segments[:n-1]
	}
}

// grow counts groups that have become durable. The journal's mu is held.
func (o *output) grow(groups []*group) {
	for _, g := range groups {
		o.note(place{o.end, g.first})
		o.end += padded(len(g.frame))
		o.last = g.last()
	}
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
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.First, s.Last, s.Held = j.trimmed+1, j.durable, j.held
	return s
}
