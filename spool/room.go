package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// roomBeside is what a take-over wants besides what it copies, in octets: the journal
// takes room ahead, and state.db is migrated.
const roomBeside = 8 << 20

// roomToTakeOver refuses to open a spool whose journal is that of an earlier version
// where the file system has no room for the copy. Nothing was changed then: once
// state.db is migrated the earlier version could not go on either.
func (s *Spool) roomToTakeOver() error {
	if counts, err := s.oldJournalCounts(); !counts || err != nil {
		return err
	}
	file := s.oldJournal()
	need, err := octetsToCopy(file)
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotDatabase) || errors.Is(err, ErrIO) {
		need = 2 * onDisk(file) // what is salvaged from it is written, and then copied
	} else if err != nil {
		return err
	}
	need += roomBeside
	free, err := FreeSpace(s.dir)
	if err != nil {
		return err
	}
	made, err := s.makings() // are deleted first
	if err != nil {
		return err
	}
	for _, dir := range made {
		free += octetsIn(dir)
	}
	if free >= need {
		return nil
	}
	return &fileError{what: "take over the journal of an earlier version", file: file, is: ErrFull,
		advice: fmt.Sprintf("free %d octets on its file system and start again; nothing was changed, so the earlier version can go on meanwhile", need-free),
		err:    fmt.Errorf("its copy takes up to %d octets, and %d are free", need, free)}
}

// octetsToCopy returns how many octets a take-over of an old journal writes: groups in
// whole sectors behind a header, what was set aside in files, and openings to state.db
// by way of its log.
func octetsToCopy(file string) (int64, error) {
	r := openBeside(file)
	if r == nil {
		return 0, nil
	}
	defer r.Close()
	v, err := version(r, file, journalSchema)
	if v == 0 || err != nil {
		return 0, err
	}
	query := "SELECT (SELECT total((length(data) + 32 + 511) / 512 * 512) FROM journal_group) + (SELECT total((length(data) + 4095) / 4096 * 4096) FROM damaged)"
	if v > 1 { // which brought them
		query += " + (SELECT total(2 * length(data) + 4096) FROM opening)"
	}
	var n float64 // total has no overflow
	if err := r.QueryRowContext(context.Background(), query).Scan(&n); err != nil {
		return 0, explain(file, err)
	}
	return int64(n), nil
}

// octetsIn returns the octets of the files in dir, of those that can be looked at.
func octetsIn(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it may be deleted meanwhile
		}
		if info, err := e.Info(); err == nil && e.Type().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
