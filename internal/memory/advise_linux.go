package memory

import (
	"syscall"
	"unsafe"
)

// hugePage is the size of the large pages of most processors, in octets.
const hugePage = 2 << 20

// Advise asks the kernel for huge pages for the memory of s, a table that will
// be read at random all over, before it is used: with small ones much of the
// time would go to finding where in memory a place is. Most systems give them
// to those who ask (/sys/kernel/mm/transparent_hugepage/enabled: madvise). It
// does nothing where s is smaller than one.
func Advise[T any](s []T) {
	var one T
	n := len(s) * int(unsafe.Sizeof(one))
	if n < hugePage {
		return
	}
	// The kernel wants whole pages. Advice is all it is: an error changes nothing.
	at := unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), n)
	page := uintptr(syscall.Getpagesize())
	skip := int(-uintptr(unsafe.Pointer(&at[0])) % page)
	_ = syscall.Madvise(at[skip:], syscall.MADV_HUGEPAGE)
}
