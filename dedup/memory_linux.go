package dedup

import (
	"syscall"
	"unsafe"
)

// hugePage is the size of the large pages of most processors, in octets.
const hugePage = 2 << 20

// newIndex returns an index of 1<<bits slots. A large one is read at random
// all over, so that with small pages most of the time would go to finding
// where in memory they are: the kernel is asked for huge ones.
func newIndex(bits uint8) index {
	x := make(index, 1<<bits)
	if size := len(x) * slotSize; size >= hugePage {
		// Advice is all it is: an error changes nothing.
		_ = syscall.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), size), syscall.MADV_HUGEPAGE)
	}
	return x
}
