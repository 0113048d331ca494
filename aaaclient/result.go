package aaaclient

import "tollbridge/dict/avp"

// A verdict says what becomes of a record by its answer.
type verdict uint8

const (
	settle     verdict = iota // accounted
	again                     // try again, elsewhere if possible, after a while
	reroute                   // this peer's route fails: try another, once each
	quarantine                // will not get better by trying
)

// judge sorts a Result-Code (RFC 6733, Section 7.1). An answer without one,
// 0, is a fault of the answering node and proves nothing about the record.
func judge(result uint32) verdict {
	switch result {
	case 0,
		avp.ResultUnableToDeliver,
		avp.ResultTooBusy,
		avp.ResultResourcesExceeded,
		avp.ResultUnableToComply:
		return again
	case avp.ResultRealmNotServed,
		avp.ResultLoopDetected,
		avp.ResultRedirectIndication:
		return reroute
	}
	switch result / 1000 {
	case 2:
		return settle
	case 4:
		return again
	}
	return quarantine
}
