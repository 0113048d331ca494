// Package hugepage asks the kernel for large pages for tables that are read at
// random all over: with small ones much of the time would go to finding where
// in memory a place is. Most systems give them to those who ask
// (/sys/kernel/mm/transparent_hugepage/enabled: madvise).
package hugepage

import (
	"syscall"
	"unsafe"
)

// size of the large pages of most processors, in octets.
const size = 2 << 20

// Advise asks for huge pages for the memory of s, before it is used. It does
// nothing where s is smaller than one.
func Advise[T any](s []T) {
	var one T
	n := len(s) * int(unsafe.Sizeof(one))
	if n < size {
		return
	}
	// The kernel wants whole pages. Advice is all it is: an error changes nothing.
	at := unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), n)
	page := uintptr(syscall.Getpagesize())
	skip := int(-uintptr(unsafe.Pointer(&at[0])) % page)
	_ = syscall.Madvise(at[skip:], syscall.MADV_HUGEPAGE)
}
