package users

// A moment is a time in Unix milliseconds in six octets: there are millions.
type moment [6]byte

func momentOf(ms int64) (m moment) {
	for i := range m {
		m[i] = byte(ms >> (8 * i))
	}
	return m
}

// ms returns m in Unix milliseconds.
func (m moment) ms() (ms int64) {
	for i, b := range m {
		ms |= int64(b) << (8 * i)
	}
	return ms
}
