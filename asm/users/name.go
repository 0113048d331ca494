package users

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the most octets of a user's or another name: an NAI has no more
// (RFC 7542, Section 2.2, for the sake of RADIUS).
const MaxName = 253

// CheckName says what is wrong with a user's or another name, whichever source
// it comes from: a User-Name is a UTF8String of Diameter (RFC 6733, Section
// 8.14), and of RADIUS if it is short enough. "" is none, and nothing is wrong
// with it.
func CheckName(s string) error {
	switch {
	case len(s) > MaxName:
		return fmt.Errorf("has %d octets: at most %d are allowed", len(s), MaxName)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has a control character")
	}
	return nil
}

// Key returns the ID or NAS of an Event from what a source calls it: that, or a
// digest of what is too long or no UTF-8.
func Key(name string) string {
	if len(name) <= MaxName && utf8.ValidString(name) {
		return name
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
}
