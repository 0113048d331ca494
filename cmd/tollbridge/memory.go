package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
)

// The daemon's heap is large and most of it lives long: bindings, sessions,
// identities of records. Go's collector looks through all of it each time as
// much has been allocated again, which took a tenth of the CPU time under
// load. With twice as much in between it takes half of that.
const gcPercent = 200

// tuneMemory trades memory for CPU time as far as there is memory: from three
// quarters of it on the collector works as often as it must. The environment
// (GOGC, GOMEMLIMIT) has the last word.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(os.DirFS("/")))
	}
}

// memoryLimit returns three quarters of the machine's memory, or of what its
// control groups grant this process where that is less, in octets. root is the
// file system's. Where it does not tell there is no limit.
func memoryLimit(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	if b, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err == nil {
			least = min(least, kib<<10)
		}
	}
	// The group of a container is mounted as the root of all groups.
	groups := []string{""}
	if b, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		for line := range bytes.Lines(b) {
			if group, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::")); ok {
				// Each group around it bounds it too, a slice its services.
				for g := filepath.Clean("/" + string(group)); g != "/"; g = filepath.Dir(g) {
					groups = append(groups, g)
				}
			}
		}
	}
	for _, group := range groups {
		b, err := fs.ReadFile(root, "sys/fs/cgroup"+group+"/memory.max")
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil { // "max" is no number
			least = min(least, n)
		}
	}
	if least == math.MaxInt64 {
		return least
	}
	return least / 4 * 3
}
