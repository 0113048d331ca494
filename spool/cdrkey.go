package spool

import (
	"strconv"
	"strings"
)

// cdrKey returns the number by which a CDR is looked up. Equal Session-Ids and
// numbers have equal keys, different ones may, so a hit is compared by text.
//
// A hash of the text would spread the keys of one moment over the whole index
// and make every insertion touch a page of its own. Session-Ids mostly have
// the form <DiameterIdentity>;<high>;<low>[;<optional>] with a low part that
// counts up (RFC 6733, Section 8.8); their keys keep that order within an
// identity, so that sessions begun together lie together:
//
//	20 bits  hash of identity and high
//	32 bits  low
//	12 bits  number and hash of the optional part
func cdrKey(sessionID string, number uint32) int64 {
	if head, low, optional, ok := splitSessionID(sessionID); ok {
		return int64(textHash(head)<<44 | uint64(low)<<12 | (textHash(optional)+uint64(number))&0xfff)
	}
	return int64(textHash(sessionID)<<12 | uint64(number)&0xfff)
}

// splitSessionID cuts a Session-Id of the recommended form. head is
// identity;high.
func splitSessionID(s string) (head string, low uint32, optional string, ok bool) {
	i := strings.IndexByte(s, ';')
	if i < 0 {
		return "", 0, "", false
	}
	j := strings.IndexByte(s[i+1:], ';')
	if j < 0 {
		return "", 0, "", false
	}
	j += i + 1
	rest := s[j+1:]
	if k := strings.IndexByte(rest, ';'); k >= 0 {
		rest, optional = rest[:k], rest[k+1:]
	}
	if _, err := strconv.ParseUint(s[i+1:j], 10, 32); err != nil {
		return "", 0, "", false
	}
	n, err := strconv.ParseUint(rest, 10, 32)
	if err != nil {
		return "", 0, "", false
	}
	return s[:j], uint32(n), optional, true
}

// textHash is FNV-1a of 64 bits: keys are stored, so it must be the same in
// every process.
func textHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h ^ h>>32
}
