package journal

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

const (
	segmentSuffix = ".segment"
	asideSuffix   = ".damaged"
	leaseFile     = "lease"
)

// A name says what a segment is. It is all of its header: a name is there whole
// or not at all.
type name struct {
	epoch  uint64 // of the lease under which it is written
	serial uint64 // counts the segments of an epoch
	first  uint64 // positions from here on count if they are in it, or in later ones
	salt   uint32 // random, so that nobody who has a message stored can forge a frame
}

func (n name) String() string {
	return fmt.Sprintf("%08d-%06d-%020d-%08x%s", n.epoch, n.serial, n.first, n.salt, segmentSuffix)
}

// parseName reads what String wrote, and nothing else.
func parseName(s string) (n name, ok bool) {
	_, err := fmt.Sscanf(s, "%d-%d-%d-%x"+segmentSuffix, &n.epoch, &n.serial, &n.first, &n.salt)
	return n, err == nil && n.String() == s && n.first > 0
}

// sum is what checksums in the segment begin with.
func (n name) sum() uint32 {
	var b [28]byte
	binary.BigEndian.PutUint64(b[:], n.epoch)
	binary.BigEndian.PutUint64(b[8:], n.serial)
	binary.BigEndian.PutUint64(b[16:], n.first)
	binary.BigEndian.PutUint32(b[24:], n.salt)
	return crc32.Checksum(b[:], castagnoli)
}

// next returns the name of the segment behind n, under an epoch, that begins at a
// position.
func (n name) next(epoch, first uint64) name {
	serial := uint64(1)
	if n.epoch == epoch {
		serial = n.serial + 1
	}
	return name{epoch, serial, first, rand.Uint32()}
}

// A span is the positions from first to last, both included.
type span struct{ first, last uint64 }

func (s span) String() string { return fmt.Sprintf("%020d-%020d%s", s.first, s.last, asideSuffix) }

func (s span) compare(other span) int { return cmp.Compare(s.first, other.first) }

func (s span) has(position uint64) bool { return s.first <= position && position <= s.last }

func parseSpan(text string) (s span, ok bool) {
	_, err := fmt.Sscanf(text, "%d-%d"+asideSuffix, &s.first, &s.last)
	return s, err == nil && s.String() == text && s.first <= s.last
}

// list returns the segments in dir in the order in which they were begun, and
// what was set aside, ascending. Of a holder that was replaced, segments that it
// began later still come before those of who replaced it.
func list(dir string) (names []name, aside []span, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, explain(dir, err)
	}
	for _, f := range files {
		switch {
		case strings.HasSuffix(f.Name(), segmentSuffix):
			n, ok := parseName(f.Name())
			if !ok {
				return nil, nil, fmt.Errorf("%s: %s is no segment of this program: move it away", dir, f.Name())
			}
			names = append(names, n)
		case strings.HasSuffix(f.Name(), asideSuffix):
			if s, ok := parseSpan(f.Name()); ok {
				aside = append(aside, s)
			}
		}
	}
	slices.SortFunc(names, func(a, b name) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.serial, b.serial))
	})
	slices.SortFunc(aside, span.compare)
	return names, aside, nil
}
