package spool

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"tollbridge/asm/acct"
)

// Between the look for the journal's end and the first segment behind it nobody can
// take the lease: what a holder finds there, and deletes, is not another's.
func TestNobodyTakesTheLeaseWhileTheJournalOpens(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	mustCommit(t, s, acct.Batch{Position: 3, Needed: 4})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil { // which the log tells of between the two
		t.Fatal(err)
	}
	holder := stopAt(t, "journal ends before the checkpoint: it was lost or is older than state.db")
	ended := holder.opening(t, dir, Config{Lease: time.Hour})

	db := sql.OpenDB(connector{filepath.Join(dir, "state.db"), "mode=rw", []string{"PRAGMA busy_timeout = 0"}})
	defer db.Close()
	var busy sqlite3.Error
	if _, err := db.ExecContext(t.Context(), "BEGIN IMMEDIATE"); !errors.As(err, &busy) || busy.Code != sqlite3.ErrBusy {
		t.Errorf("who takes the lease meanwhile gets %v", err)
	}
	holder.release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
