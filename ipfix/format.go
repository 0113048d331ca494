package ipfix

import (
	"encoding/hex"
	"net"
	"strconv"
	"time"
)

// FormatValue returns a value for people: numbers in decimal, addresses and
// MAC addresses in their usual forms, times in RFC 3339, strings quoted where
// they hold anything but printable characters, and octets in hexadecimal.
// Octets that can't be a value of the type are shown in hexadecimal too, and so
// are lists of records: FormatList shows them.
func FormatValue(t Type, b []byte) string {
	if t.structured() {
		return FormatList(t, b, nil)
	}
	if len(b) == 0 && t != TypeString {
		return ""
	}
	switch t {
	case TypeUnsigned8, TypeUnsigned16, TypeUnsigned32, TypeUnsigned64:
		if len(b) <= 8 {
			return strconv.FormatUint(unsigned(b), 10)
		}
	case TypeSigned8, TypeSigned16, TypeSigned32, TypeSigned64:
		if len(b) <= 8 {
			return strconv.FormatInt(signed(b), 10)
		}
	case TypeFloat32, TypeFloat64:
		switch len(b) {
		case 4:
			return strconv.FormatFloat(float(b), 'g', -1, 32)
		case 8:
			return strconv.FormatFloat(float(b), 'g', -1, 64)
		}
	case TypeBoolean:
		// RFC 7011, Section 6.1.5: 1 is true, 2 is false.
		if len(b) == 1 && b[0] == 1 {
			return "true"
		}
		if len(b) == 1 && b[0] == 2 {
			return "false"
		}
	case TypeMacAddress:
		if len(b) == 6 {
			return net.HardwareAddr(b).String()
		}
	case TypeString:
		s := string(b)
		if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
			return quoted
		}
		return s
	case TypeDateTimeSeconds, TypeDateTimeMilliseconds, TypeDateTimeMicroseconds, TypeDateTimeNanoseconds:
		if at, ok := timeOf(t, b); ok {
			return at.Format(time.RFC3339Nano)
		}
	case TypeIpv4Address, TypeIpv6Address:
		if a := address(b); a.IsValid() {
			return a.String()
		}
	}
	return hex.EncodeToString(b)
}
