// Package dedup remembers what was seen, so that nothing is accounted twice.
//
// An [Identity] is a keyed 128-bit hash of a whole Data Record or Message. A
// [Window] remembers the identities of Data Records by the time their Flows
// ended and says of each record whether it is new; a [Recent] does the same
// for Messages by the time they arrived. Both are bounded in memory, do no
// I/O, take time as an argument and answer the same calls with the same
// answers, also after they were restored from a checkpoint.
//
// None of the types may be used by two goroutines at once.
package dedup
