package ipfix

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// unsigned reads an unsigned integer of any length. One that does not fit 64
// bits is the largest that does.
func unsigned(b []byte) uint64 {
	var v uint64
	for _, c := range b {
		if v>>56 != 0 {
			return math.MaxUint64
		}
		v = v<<8 | uint64(c)
	}
	return v
}

// signed reads a two's complement integer of up to eight octets.
func signed(b []byte) int64 {
	if len(b) == 0 || len(b) > 8 {
		return 0
	}
	shift := 64 - 8*len(b)
	return int64(unsigned(b)<<shift) >> shift
}

// float reads a float32 or float64, 0 from any other length.
func float(b []byte) float64 {
	switch len(b) {
	case 4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	case 8:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	}
	return 0
}

// address reads an address of 4 or 16 octets, the zero Addr from any other
// length.
func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// isTime reports whether values of n octets are times of the type.
func (t Type) isTime(n int) bool {
	return t >= TypeDateTimeSeconds && t <= TypeDateTimeNanoseconds && n == t.Length()
}

// NTP timestamps count seconds since 1900, modulo 2^32. Flows are not older
// than 1970, so what would be belongs to the era that begins in 2036 (RFC 7011,
// Section 5.2), and all time encodings reach until 2106.
const (
	unixEpoch = 2208988800 // NTP seconds
	ntpEra    = 1 << 32    // seconds
)

// ntp splits an NTP timestamp into Unix seconds and the fraction of 2^32.
func ntp(v uint64) (seconds int64, fraction uint64) {
	seconds = int64(v>>32) - unixEpoch
	if seconds < 0 {
		seconds += ntpEra
	}
	return seconds, v & math.MaxUint32
}

// ntpUnits returns how many of the units that the type counts are in a
// fraction of 2^32 of a second, and how many are in a second. Exporters
// truncate to 2^-32 seconds, or to 2^-21 for microseconds (RFC 7011, Section
// 6.1.9), so it rounds back to the nearest.
func ntpUnits(t Type, fraction uint64) (units, perSecond uint64) {
	perSecond = 1e9
	if t == TypeDateTimeMicroseconds {
		fraction &^= unusedFraction
		perSecond = 1e6
	}
	return (fraction*perSecond + 1<<31) >> 32, perSecond
}

// unusedFraction are the bits of the fraction that a dateTimeMicroseconds
// does not use (RFC 7011, Section 6.1.9).
const unusedFraction = 1<<11 - 1

// ntpMilli converts an NTP timestamp of the type to Unix milliseconds. Zero,
// which says that the time is not known (RFC 5905, Section 6), stays zero.
func ntpMilli(t Type, v uint64) uint64 {
	if v == 0 {
		return 0
	}
	s, f := ntp(v)
	units, perSecond := ntpUnits(t, f)
	return uint64(s)*1000 + units/(perSecond/1000)
}

// unixMilli reads a time in Unix milliseconds, false if it is none.
func unixMilli(t Type, b []byte) (int64, bool) {
	if !t.isTime(len(b)) {
		return 0, false
	}
	v := unsigned(b)
	switch t {
	case TypeDateTimeSeconds:
		v *= 1000
	case TypeDateTimeMilliseconds:
		v &= milliMask
	case TypeDateTimeMicroseconds, TypeDateTimeNanoseconds:
		if v == 0 {
			return 0, false
		}
		v = ntpMilli(t, v)
	}
	return int64(v), true
}

// milliMask clears the highest bit of a dateTimeMilliseconds, 292 million
// years away, so that it is no negative time.
const milliMask = math.MaxInt64

// timeOf reads a time at its full precision, false if it is none.
func timeOf(t Type, b []byte) (time.Time, bool) {
	if t != TypeDateTimeMicroseconds && t != TypeDateTimeNanoseconds {
		ms, ok := unixMilli(t, b)
		if !ok {
			return time.Time{}, false
		}
		return time.UnixMilli(ms).UTC(), true
	}
	if len(b) != 8 {
		return time.Time{}, false
	}
	v := binary.BigEndian.Uint64(b)
	if v == 0 {
		return time.Time{}, false
	}
	s, f := ntp(v)
	units, perSecond := ntpUnits(t, f)
	return time.Unix(s, int64(units*(1e9/perSecond))).UTC(), true
}

// ntpOf returns the NTP timestamp of the type for a time, rounded up to what
// the type can hold, so that truncation gives back the same unit.
func ntpOf(t Type, at time.Time) uint64 {
	if t == TypeDateTimeMicroseconds {
		at = at.Truncate(time.Microsecond)
	}
	f := (uint64(at.Nanosecond())<<32 + 1e9 - 1) / 1e9
	if t == TypeDateTimeMicroseconds {
		f = (f + unusedFraction) &^ unusedFraction
	}
	v := uint64(at.Unix()+unixEpoch)<<32 | f
	if v == 0 {
		return unusedFraction + 1 // rounds to the start of the era, which zero does not mean
	}
	return v
}
