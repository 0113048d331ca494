package spool

import "golang.org/x/sys/unix"

// fileSystemOf returns the name of the file system that dir is on, if it is one
// of sharedFileSystems; "" for every other, and where that can't be told.
func fileSystemOf(dir string) string {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return ""
	}
	return sharedFileSystems[uint32(s.Type)]
}

// sharedFileSystems are those over which several machines see the same files, by
// their number in statfs(2).
var sharedFileSystems = map[uint32]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CEPH_SUPER_MAGIC: "CephFS",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.V9FS_MAGIC:       "9P",
}
