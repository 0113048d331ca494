package memory_test

import (
	"testing"

	"tollbridge/internal/memory"
)

// TestAdviseLeavesContents also of memory that is in use, and of slices that
// begin or end within a page.
func TestAdviseLeavesContents(t *testing.T) {
	for _, from := range []int{0, 1, 511} {
		all := make([]int64, 1<<20)
		s := all[from:]
		for i := range s {
			s[i] = int64(i)
		}
		memory.Advise(s)
		for i := range s {
			if s[i] != int64(i) {
				t.Fatalf("from %d: place %d holds %d", from, i, s[i])
			}
		}
	}
	memory.Advise[byte](nil)
	memory.Advise([]byte{1})
}
