package file

import (
	"crypto/md5"
	"errors"

	"tollbridge/ipfix"
)

// ErrChecksum says that the octets of a Message are not those that its
// checksum was made of.
var ErrChecksum = errors.New("message checksum does not match")

// VerifyChecksum looks for the Message Checksum record (RFC 5655,
// Section 8.1.1) in a Data Set of msg, and compares. It returns false if there
// is none, and ErrChecksum if it does not match. It writes to msg, which is as
// before when it returns.
func VerifyChecksum(msg []byte, set ipfix.DataSet) (bool, error) {
	t := set.Template
	if t == nil || t.Scope != 1 || t.Fields[0].ID != ipfix.MessageScope || t.Fields[0].Enterprise != 0 {
		return false, nil
	}
	i, ok := t.Index(0, ipfix.MessageMD5Checksum)
	if !ok || t.Fields[i].Length != md5.Size {
		return false, nil
	}
	found := false
	for r, ok := set.Next(); ok; r, ok = set.Next() {
		found = true
		if !matches(msg, r.Field(i)) {
			return true, ErrChecksum
		}
	}
	return found, nil
}

// matches compares a checksum, which lies in msg, with that of msg: MD5 of the
// Message with zeros in the checksum's place.
func matches(msg, checksum []byte) bool {
	var want [md5.Size]byte
	copy(want[:], checksum)
	clear(checksum)
	got := md5.Sum(msg)
	copy(checksum, want[:])
	return got == want
}
