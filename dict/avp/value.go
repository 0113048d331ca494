package avp

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// The methods below read the data of an AVP as one of the formats of RFC 6733,
// Sections 4.2 and 4.3. Data of the wrong length is an ErrLength, which a
// server answers with ResultInvalidAVPLength.

// Uint32 reads an Unsigned32 or Enumerated.
func (a AVP) Uint32() (uint32, error) {
	if len(a.Data) != 4 {
		return 0, &DecodeError{0, "Unsigned32", ErrLength}
	}
	return binary.BigEndian.Uint32(a.Data), nil
}

// Uint64 reads an Unsigned64.
func (a AVP) Uint64() (uint64, error) {
	if len(a.Data) != 8 {
		return 0, &DecodeError{0, "Unsigned64", ErrLength}
	}
	return binary.BigEndian.Uint64(a.Data), nil
}

// Int32 reads an Integer32.
func (a AVP) Int32() (int32, error) {
	if len(a.Data) != 4 {
		return 0, &DecodeError{0, "Integer32", ErrLength}
	}
	return int32(binary.BigEndian.Uint32(a.Data)), nil
}

// Int64 reads an Integer64.
func (a AVP) Int64() (int64, error) {
	if len(a.Data) != 8 {
		return 0, &DecodeError{0, "Integer64", ErrLength}
	}
	return int64(binary.BigEndian.Uint64(a.Data)), nil
}

// Float32 reads a Float32.
func (a AVP) Float32() (float32, error) {
	if len(a.Data) != 4 {
		return 0, &DecodeError{0, "Float32", ErrLength}
	}
	return math.Float32frombits(binary.BigEndian.Uint32(a.Data)), nil
}

// Float64 reads a Float64.
func (a AVP) Float64() (float64, error) {
	if len(a.Data) != 8 {
		return 0, &DecodeError{0, "Float64", ErrLength}
	}
	return math.Float64frombits(binary.BigEndian.Uint64(a.Data)), nil
}

// Addr reads an Address. A family other than IPv4 and IPv6 is an ErrValue.
func (a AVP) Addr() (netip.Addr, error) {
	if len(a.Data) < 2 {
		return netip.Addr{}, &DecodeError{0, "Address", ErrLength}
	}
	var size int
	switch binary.BigEndian.Uint16(a.Data) {
	case familyIPv4:
		size = 4
	case familyIPv6:
		size = 16
	default:
		return netip.Addr{}, &DecodeError{0, "AddressType", ErrValue}
	}
	if len(a.Data) != 2+size {
		return netip.Addr{}, &DecodeError{0, "Address", ErrLength}
	}
	addr, _ := netip.AddrFromSlice(a.Data[2:])
	return addr, nil
}

// A Time counts seconds since 1900 in 32 bits, as NTP does. Values with the top
// bit clear are after the rollover in 2036 (RFC 6733, Section 4.3.1; RFC 5905,
// Section 6).
var (
	MinTime = time.Unix(1<<31-ntpUnix, 0).UTC()         // 1968-01-20 03:14:08
	MaxTime = time.Unix(1<<32+1<<31-1-ntpUnix, 0).UTC() // 2104-02-26 09:42:23
)

// ntpUnix is the seconds from 1900 to 1970.
const ntpUnix = 2208988800

// Time reads a Time, in UTC.
func (a AVP) Time() (time.Time, error) {
	if len(a.Data) != 4 {
		return time.Time{}, &DecodeError{0, "Time", ErrLength}
	}
	s := int64(binary.BigEndian.Uint32(a.Data))
	if s < 1<<31 {
		s += 1 << 32
	}
	return time.Unix(s-ntpUnix, 0).UTC(), nil
}
