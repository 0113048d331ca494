package hugepage_test

import (
	"testing"

	"tollbridge/internal/hugepage"
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
		hugepage.Advise(s)
		for i := range s {
			if s[i] != int64(i) {
				t.Fatalf("from %d: place %d holds %d", from, i, s[i])
			}
		}
	}
	hugepage.Advise[byte](nil)
	hugepage.Advise([]byte{1})
}
