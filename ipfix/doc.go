// Package ipfix is the codec of IPFIX (RFC 7011, RFC 7012): Messages, Sets,
// Templates, Data Records and Information Elements. It does no I/O.
//
// A [Session] decodes the Messages of one Transport Session in place. A
// [Plan] or an [Accessor], compiled from a [Template] once, reads values from
// its records without allocation. An [Encoder] builds Messages.
package ipfix

//go:generate go run tollbridge/internal/iegen -o ie_generated.go
