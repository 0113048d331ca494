package spool

import (
	"fmt"
	"log/slog"
)

// checkFileSystem refuses a lease on a directory that several machines may see at
// once, on a file system of a name ("" for a local one). SQLite's write-ahead log
// has its index in memory that processes of one machine share, so each machine
// would read and write as if it were alone, whatever the fence says: that is a row
// of the same database. A single daemon may do there, if nobody else does.
func checkFileSystem(dir, name string, lease bool, log *slog.Logger) error {
	switch {
	case name == "":
		return nil
	case lease:
		return fmt.Errorf("spool: %s is on %s, which daemons of two machines would damage: with spool.lease the state directory has to be on a file system that one machine at a time has, such as ext4 or xfs on a volume that the cluster mounts", dir, name)
	}
	log.Warn("the state directory is on a network file system: no other machine may have it open, and its fsync has to reach a disk", "data", dir, "file_system", name)
	return nil
}
