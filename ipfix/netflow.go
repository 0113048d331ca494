package ipfix

import "math"

// Versions of NetFlow that decode as Messages.
const (
	NetFlow9 = 9 // RFC 3954
	NetFlow5 = 5
)

// NetFlowPEN stands in for the Enterprise Number of NetFlow version 9 fields
// whose types are above 32767, where IPFIX has its enterprise bit: their
// vendors number them as they like. Their Information Element identifier is
// the type less 32768. IANA has reserved the number.
const NetFlowPEN = math.MaxUint32

// InitTime returns the Unix milliseconds of the exporter's start, or of the
// moment when its up time last started over, false if the header does not say
// or its clock is not set. Version 9 tells the export time in whole seconds,
// so its value may be early by up to one, and differs from Message to Message.
func (h *Header) InitTime() (int64, bool) {
	at := h.exportMilli() - int64(h.UpTime)
	return at, h.Version != Version && at > 0
}

func (h *Header) exportMilli() int64 {
	return int64(h.ExportTime)*1000 + int64(h.nanos/1e6)
}

// initTime returns the systemInitTimeMilliseconds of a record that ends at an
// up time, where the export was at another: one that ended before the up time
// last started over belongs to the start before. It is never negative.
func initTime(exportMilli int64, exportUp, up uint32) uint64 {
	return uint64(max(exportMilli+int64(int32(up-exportUp))-int64(up), 0))
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
