package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tollbridge/spool"
)

// manifestName is the manifest's in the archive's directory: a line of JSON for
// each Segment, in order. A Segment is in the archive once its line is.
const manifestName = "manifest.jsonl"

// A Kind says what a Segment is.
type Kind string

const (
	Journal Kind = "journal" // entries of the journal, Messages among them
	CDRs    Kind = "cdr"     // settled accounting records
	Expired Kind = "expired" // takes the files of earlier Segments away
)

// A Segment is a line of the manifest.
type Segment struct {
	Number   uint64        `json:"number"` // 1, 2, 3 ...
	Kind     Kind          `json:"kind"`
	Written  time.Time     `json:"written"`
	First    uint64        `json:"first,omitempty"`    // journal position
	Last     uint64        `json:"last,omitempty"`     // likewise
	Records  int           `json:"records"`            // journal entries, or accounting records
	Messages int           `json:"messages,omitempty"` // of the entries
	Octets   uint64        `json:"octets"`             // of the Messages, or of the records' increments
	IDs      []spool.Range `json:"ids,omitempty"`      // of the records in the outbox
	Files    []File        `json:"files,omitempty"`
	Expires  []uint64      `json:"expires,omitempty"` // numbers of the Segments whose files are gone
	Previous string        `json:"previous"`          // Chain of the line before
	Chain    string        `json:"chain"`             // SHA-256 of this line with an empty Chain
}

// A File is one of a Segment's.
type File struct {
	Name   string `json:"name"`
	Octets int64  `json:"octets"`
	SHA256 string `json:"sha256"`
}

// sum returns what Chain is to be.
func (s Segment) sum() (string, error) {
	s.Chain = ""
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

// file returns the name of the one that ends so, "" for none.
func (s *Segment) file(suffix string) string {
	for _, f := range s.Files {
		if strings.HasSuffix(f.Name, suffix) {
			return f.Name
		}
	}
	return ""
}

// octets of the files.
func (s *Segment) octets() (n int64) {
	for _, f := range s.Files {
		n += f.Octets
	}
	return n
}

// ErrBroken is matched by the errors of an archive that is not as it was
// written.
var ErrBroken = errors.New("the archive is not as it was written")

// Is reports whether there is an archive in dir.
func Is(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifestName))
	return err == nil
}

// Read returns the Segments of the archive in dir, oldest first, after checking
// the chain. A last line without its end was being written by a crash and is
// left out; whole is the length of the rest.
func Read(dir string) (segments []Segment, whole int64, err error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	previous := ""
	for n := uint64(1); ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return segments, whole, nil
		} else if err != nil {
			return nil, 0, fmt.Errorf("archive: %w", err)
		}
		var s Segment
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, 0, fmt.Errorf("archive: %s line %d: %w: %w", manifestName, n, ErrBroken, err)
		}
		sum, err := s.sum()
		if err != nil || s.Chain != sum || s.Previous != previous || s.Number != n {
			return nil, 0, fmt.Errorf("archive: %s line %d: it was changed, or lines before it were removed or reordered: %w", manifestName, n, ErrBroken)
		}
		previous = s.Chain
		segments = append(segments, s)
		whole += int64(len(line))
	}
}

// Kept returns the Segments whose files are there.
func Kept(segments []Segment) []Segment {
	gone := make(map[uint64]bool)
	for _, s := range segments {
		for _, n := range s.Expires {
			gone[n] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(segments), func(s Segment) bool { return gone[s.Number] || s.Kind == Expired })
}

// Verify reads all of the archive in dir and returns what is wrong with it. head
// is the chain's end as it is known from elsewhere, which shows whether lines
// were cut off; "" is not compared.
func Verify(dir, head string) (segments []Segment, problems []string, err error) {
	segments, _, err = Read(dir)
	if errors.Is(err, ErrBroken) {
		return nil, []string{err.Error()}, nil
	} else if err != nil {
		return nil, nil, err
	}
	// A crash may leave the last line unknown elsewhere.
	if head != "" && !slices.ContainsFunc(segments[max(0, len(segments)-2):], func(s Segment) bool { return s.Chain == head }) {
		problems = append(problems, "the manifest does not end as the spool knows it: lines were removed or added")
	}
	next := uint64(0)
	for _, s := range Kept(segments) {
		if s.Kind == Journal {
			if next != 0 && s.First != next {
				problems = append(problems, fmt.Sprintf("segment %d begins at journal position %d, not %d", s.Number, s.First, next))
			}
			next = s.Last + 1
		}
		for _, f := range s.Files {
			octets, sum, err := digest(filepath.Join(dir, f.Name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				problems = append(problems, fmt.Sprintf("segment %d: %s is missing", s.Number, f.Name))
			case err != nil:
				problems = append(problems, fmt.Sprintf("segment %d: %v", s.Number, err))
			case octets != f.Octets || sum != f.SHA256:
				problems = append(problems, fmt.Sprintf("segment %d: %s was changed: it has %d octets of SHA-256 %.12s, not %d of %.12s", s.Number, f.Name, octets, sum, f.Octets, f.SHA256))
			}
		}
	}
	return segments, problems, nil
}

func digest(name string) (int64, string, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// add numbers s, chains it and appends it to the manifest, durably.
func (a *Archive) add(s Segment) error {
	s.Number, s.Written, s.Previous = uint64(len(a.segments)+1), time.Now().UTC(), a.head()
	var err error
	if s.Chain, err = s.sum(); err != nil {
		return err
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err = a.manifest.WriteAt(append(line, '\n'), a.whole); err == nil {
		a.at("line written")
		err = a.manifest.Sync()
	}
	if err != nil {
		// What is of the line must not be taken for one.
		return errors.Join(err, a.manifest.Truncate(a.whole))
	}
	a.whole += int64(len(line)) + 1
	a.segments = append(a.segments, s)
	return nil
}

// confirm makes what Read found durable. The last line may be of a life that was
// killed before it had synced it, or whose sync failed: it is written again,
// since what a failed sync leaves is clean to the next.
func (a *Archive) confirm() error {
	if err := a.manifest.Truncate(a.whole); err != nil || a.whole == 0 {
		return err
	}
	// Lines are seldom long: look for the end of the one before further and further back.
	for n := int64(4 << 10); ; n *= 2 {
		tail := make([]byte, min(n, a.whole))
		if _, err := a.manifest.ReadAt(tail, a.whole-int64(len(tail))); err != nil {
			return err
		}
		begin := bytes.LastIndexByte(tail[:len(tail)-1], '\n') + 1
		if begin == 0 && int64(len(tail)) < a.whole {
			continue
		}
		if _, err := a.manifest.WriteAt(tail[begin:], a.whole-int64(len(tail)-begin)); err != nil {
			return err
		}
		return a.manifest.Sync()
	}
}

// head returns the end of the chain.
func (a *Archive) head() string {
	if len(a.segments) == 0 {
		return ""
	}
	return a.segments[len(a.segments)-1].Chain
}

// sweep removes the files that a crash left: those that no kept Segment has.
func (a *Archive) sweep() error {
	known := map[string]bool{manifestName: true}
	for _, s := range Kept(a.segments) {
		for _, f := range s.Files {
			known[f.Name] = true
		}
	}
	entries, err := os.ReadDir(a.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "segment-") || known[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(a.cfg.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fileName names a file of the next Segment.
func (a *Archive) fileName(what string) string {
	return fmt.Sprintf("segment-%08d-%s", len(a.segments)+1, what)
}
