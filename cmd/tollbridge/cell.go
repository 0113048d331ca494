package main

import (
	"fmt"
	"strconv"
	"time"
)

// unixTime is a time in Unix seconds, where 0 is none.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// timeText is a time as listings show it: RFC 3339 in UTC, blank for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z")
}

func usageText(octets, packets uint64) string {
	return fmt.Sprintf("%d octets, %d packets", octets, packets)
}

func blankZero(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}
