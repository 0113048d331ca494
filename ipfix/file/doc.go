// Package file reads and writes IPFIX Files (RFC 5655): Messages end to end, as
// one Transport Session. It also finds Messages in what people have besides:
// files of raw payloads, NetFlow versions 5 and 9 included, and captured
// packets.
package file
