package main

import (
	"path/filepath"
	"testing"
	"time"

	"tollbridge/spool"
)

// A holder that hangs within a transaction keeps SQLite's lock: a standby does
// not end over that, and takes over once it is free.
func TestAStandbyOutlastsALockedDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"state.db", "cdr.db"} { // the fence of the first is there when the second is asked
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := setup{data: filepath.Join(t.TempDir(), "data"), tcp: "127.0.0.1:0", server: "127.0.0.1:0", spool: ", lease: 1s"}
			holder, err := spool.Open(cfg.data, spool.Config{Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Close()
			cdrs, err := holder.OpenCDRs()
			if err != nil {
				t.Fatal(err)
			}
			defer cdrs.Close()
			release := lockOut(t, filepath.Join(cfg.data, name+"-shm"))
			d := launch(t, plainProgram, cfg)
			d.waitLog("still has a database locked")
			release()
			d.waitLog("msg=started")
			d.stop()
		})
	}
}
