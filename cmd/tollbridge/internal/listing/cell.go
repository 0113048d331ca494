package listing

import (
	"fmt"
	"strconv"
	"time"

	"tollbridge/asm/acct"
)

// UnixTime is a time in Unix seconds, where 0 is none.
func UnixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// Time is a time as listings show it: RFC 3339 in UTC, blank for none.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z")
}

// Usage is an amount as listings show it.
func Usage(octets, packets uint64) string {
	return fmt.Sprintf("%d octets, %d packets", octets, packets)
}

// BlankZero is a number as listings show it, blank for none.
func BlankZero(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

// RecordType is a record's type as listings show it, with what a correction
// does.
func RecordType(t string, c *acct.Correction) string {
	switch {
	case c == nil:
		return t
	case c.Credit:
		return t + " credit"
	}
	return t + " debit"
}
