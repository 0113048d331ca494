package avp

// MaxIdentity is the most octets of a DiameterIdentity that this package
// takes for valid: the longest domain name in text.
const MaxIdentity = 253

// ValidIdentity reports whether s can be a DiameterIdentity, a fully
// qualified domain name or a realm (RFC 6733, Section 4.3.1): labels of
// letters, digits, hyphens and underscores, 1 to 63 octets each, with dots
// between them. Internationalized names must come as A-labels.
func ValidIdentity(s string) bool {
	if len(s) == 0 || len(s) > MaxIdentity {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}

// EqualIdentity reports whether two DiameterIdentities name the same node or
// realm: they compare as domain names do, without regard to ASCII case.
func EqualIdentity[A, B ~string | ~[]byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// FoldIdentity returns a DiameterIdentity as it compares and sorts: with the
// ASCII letters in lower case.
func FoldIdentity[T ~string | ~[]byte](id T) string {
	b := []byte(string(id))
	for i, c := range b {
		b[i] = lower(c)
	}
	return string(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
