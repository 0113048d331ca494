package export

import "time"

// A clock tells the Export Times of one Transport Session, in Unix seconds. It
// is the Export Time of the latest Templates: no Message after them has an
// earlier one, though the host's clock be set back, as it would not be theirs
// to describe (RFC 7011, Section 8.2). The zero clock is that of a new session.
type clock uint32

// data returns the Export Time of a Message of Data Records.
func (c *clock) data(now time.Time) uint32 { return max(uint32(now.Unix()), uint32(*c)) }

// templates returns the Export Time of a Message of Templates.
func (c *clock) templates(now time.Time) uint32 {
	*c = clock(c.data(now))
	return uint32(*c)
}
