package dedup_test

import (
	"fmt"
	"time"

	"tollbridge/dedup"
)

func ExampleWindow() {
	key := dedup.Key{ /* random, and kept */ }
	window := dedup.NewWindow(dedup.Config{Length: time.Hour})

	// What all records of a Template share is hashed once.
	prefix := key.Hash().String("edge 1").Uint64(7).Uint64(0x1234)

	clock := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	window.Advance(clock.UnixMilli())
	end := clock.Add(-time.Minute).UnixMilli()
	fmt.Println(window.Add(prefix.Sum([]byte("a record")), end))
	fmt.Println(window.Add(prefix.Sum([]byte("another")), end))
	fmt.Println(window.Add(prefix.Sum([]byte("a record")), end))
	fmt.Println(window.Add(prefix.Sum([]byte("a record of old")), end-2*time.Hour.Milliseconds()))
	fmt.Println(window.Add(prefix.Sum([]byte("a record to come")), end+time.Hour.Milliseconds()))
	// Output:
	// new
	// new
	// duplicate
	// below floor
	// ahead of clock
}
