package file_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

const corpusDir = "../../../shared/corpus"

// flows is a Template with flow times, and one value of variable length.
func flows(tb testing.TB, id uint16) *ipfix.Template {
	tb.Helper()
	t, err := ipfix.NewTemplate(id,
		ipfix.FieldSpecifier{ID: ipfix.FlowStartMilliseconds, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.FlowEndMilliseconds, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.UserName, Length: ipfix.VariableLength})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// begin is when the first flow of messages starts.
var begin = time.UnixMilli(1_700_000_000_123).UTC()

// messages returns n Messages of a domain with three flows each, the Template
// in the first of them.
func messages(tb testing.TB, domain uint32, id uint16, n int) [][]byte {
	tb.Helper()
	t := flows(tb, id)
	e := ipfix.NewEncoder(domain, 0)
	if err := e.AddTemplate(t); err != nil {
		tb.Fatal(err)
	}
	var all [][]byte
	for i := range n {
		for k := range 3 {
			start := begin.Add(time.Duration(3*i+k) * time.Second)
			if err := e.AddRecord(t, start, start.Add(500*time.Millisecond), 100*i+k, "alice"); err != nil {
				tb.Fatal(err)
			}
		}
		all = append(all, bytes.Clone(e.Flush(uint32(begin.Unix())+uint32(i))))
	}
	return all
}

// readAll returns the Messages of a file and the error that ended it.
func readAll(r io.Reader) (all [][]byte, offsets []int64, err error) {
	f := file.NewReader(r)
	for {
		m, err := f.Next()
		if err == io.EOF {
			return all, offsets, nil
		}
		if err != nil {
			return all, offsets, err
		}
		all = append(all, bytes.Clone(m.Octets))
		offsets = append(offsets, m.Offset)
	}
}

func TestReader(t *testing.T) {
	want := messages(t, 1, 256, 2000)
	whole := slices.Concat(want...)
	for how, r := range map[string]io.Reader{
		"whole":          bytes.NewReader(whole),
		"in halves":      iotest.HalfReader(bytes.NewReader(whole)),
		"octet by octet": iotest.OneByteReader(bytes.NewReader(whole)),
		"error with end": iotest.DataErrReader(bytes.NewReader(whole)),
	} {
		t.Run(how, func(t *testing.T) {
			got, offsets, err := readAll(r)
			if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("%d messages of %d, error %v", len(got), len(want), err)
			}
			at := int64(0)
			for i, m := range got {
				if offsets[i] != at {
					t.Fatalf("message %d at octet %d, want %d", i, offsets[i], at)
				}
				at += int64(len(m))
			}
		})
	}
}

func TestReaderDamage(t *testing.T) {
	msgs := messages(t, 1, 256, 4)
	whole := slices.Concat(msgs...)
	second := len(msgs[0])
	garbled := bytes.Clone(whole)
	copy(garbled[second:], "garbage!")
	shortened := slices.Concat(msgs[0], msgs[1][:20], msgs[2], msgs[3])
	huge := bytes.Clone(whole)
	huge[second+2], huge[second+3] = 0xff, 0xff
	for _, row := range []struct {
		name    string
		file    []byte
		before  int // Messages
		want    error
		skipped int
		after   int
	}{
		{"no Message Header where one must be", garbled, 1, ipfix.ErrVersion, len(msgs[1]), 2},
		{"a Message is cut short, and the next one read into it", shortened, 2, ipfix.ErrVersion, 0, 1},
		{"Length beyond the end", huge, 1, io.ErrUnexpectedEOF, len(msgs[1]), 2},
		{"ends within a Message", whole[:len(whole)-1], 3, io.ErrUnexpectedEOF, len(msgs[3]) - 1, 0},
		{"ends within a header", whole[:second+5], 1, io.ErrUnexpectedEOF, 5, 0},
		{"Length below 16", slices.Concat(msgs[0], []byte{0, 10, 0, 15}, make([]byte, 12), msgs[2]), 1, ipfix.ErrLength, 16, 1},
		{"no message at all", []byte("hello, world"), 0, ipfix.ErrVersion, 12, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := file.NewReader(iotest.HalfReader(bytes.NewReader(row.file)))
			count := func() (n int, err error) {
				for {
					if _, err = r.Next(); err != nil {
						return n, err
					}
					n++
				}
			}
			before, err := count()
			var damage *file.DamageError
			if before != row.before || !errors.Is(err, row.want) || !errors.As(err, &damage) {
				t.Fatalf("%d messages and error %v, want %d and %v", before, err, row.before, row.want)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("the error %v did not stay, but became %v", err, again)
			}
			skipped, err := r.Resync()
			if err != nil || row.skipped > 0 && skipped != int64(row.skipped) {
				t.Errorf("skipped %d octets, want %d; error %v", skipped, row.skipped, err)
			}
			after, err := count()
			if after != row.after || err != io.EOF {
				t.Errorf("%d messages behind the damage, want %d; error %v", after, row.after, err)
			}
		})
	}
}

func TestReaderFails(t *testing.T) {
	failed := errors.New("disk on fire")
	got, _, err := readAll(io.MultiReader(bytes.NewReader(messages(t, 1, 256, 1)[0]), iotest.ErrReader(failed)))
	if len(got) != 1 || !errors.Is(err, failed) {
		t.Errorf("%d messages, error %v, want 1 and the file's", len(got), err)
	}
}

// sums decodes a File as a reliable session, and returns the octets counted,
// what was lost, checksums that match, and the options records by element.
func sums(t *testing.T, b []byte) (octets, lost uint64, checksums int, options map[uint16][]byte) {
	t.Helper()
	session := ipfix.NewSession(ipfix.TCP)
	options = make(map[uint16][]byte)
	msgs, _, err := readAll(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, msg := range msgs {
		r, err := session.Decode(msg, func(s ipfix.DataSet) {
			found, err := file.VerifyChecksum(msg, s)
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
			if found {
				checksums++
			}
			if s.Template == nil {
				t.Errorf("message %d: data set %d without template", i, s.ID)
				return
			}
			a, counts := s.Template.Accessor(0, ipfix.OctetDeltaCount)
			for r, ok := s.Next(); ok; r, ok = s.Next() {
				if counts {
					octets += a.Uint64(r)
				}
				for k, f := range s.Template.Fields {
					if s.Template.Scope > 0 {
						options[f.ID] = bytes.Clone(r.Field(k))
					}
				}
			}
		})
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if r.Restarted || r.Found > 0 {
			t.Errorf("message %d: sequence %+v", i, r)
		}
		lost += r.Lost
	}
	return octets, lost, checksums, options
}

func write(t *testing.T, cfg file.Config, msgs [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := file.NewWriter(&b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Octets() != int64(b.Len()) {
		t.Errorf("Octets says %d, the file has %d", w.Octets(), b.Len())
	}
	return b.Bytes()
}

func TestWriterKeepsMessages(t *testing.T) {
	want := messages(t, 1, 256, 5)
	got, _, err := readAll(bytes.NewReader(write(t, file.Config{}, want)))
	if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("messages changed; error %v", err)
	}
}

func FuzzReader(f *testing.F) {
	msgs := messages(f, 1, 256, 3)
	f.Add(slices.Concat(msgs...))
	f.Add(slices.Concat(msgs[0], []byte("garbage"), msgs[1]))
	f.Add(msgs[0][:30])
	f.Add(append([]byte{0, 5, 0, 1}, make([]byte, 68)...))
	f.Add(append([]byte{0, 9, 0, 1}, make([]byte, 40)...))
	f.Add(append(append([]byte{0, 9, 0, 1}, make([]byte, 16)...), 1, 0, 0, 8, 1, 2, 3, 4, 0, 9, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.HalfReader(bytes.NewReader(b))} {
			read := file.NewReader(r)
			var at int64
			for {
				m, err := read.Next()
				if err == io.EOF {
					break
				}
				var damage *file.DamageError
				if errors.As(err, &damage) {
					if damage.Offset != at {
						t.Fatalf("damage at octet %d, read up to %d", damage.Offset, at)
					}
					skipped, err := read.Resync()
					if err != nil || skipped <= 0 {
						t.Fatalf("skipped %d octets, error %v", skipped, err)
					}
					at += skipped
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if m.Offset != at || !bytes.Equal(m.Octets, b[at:at+int64(len(m.Octets))]) || len(m.Octets) == 0 {
					t.Fatalf("message of %d octets at %d, read up to %d", len(m.Octets), m.Offset, at)
				}
				at += int64(len(m.Octets))
				for s := range file.Sets(m.Octets) {
					if s.Offset+s.Length > len(m.Octets) {
						t.Fatalf("set %+v in %d octets", s, len(m.Octets))
					}
				}
			}
			if at != int64(len(b)) {
				t.Fatalf("read %d octets of %d", at, len(b))
			}
		}
	})
}

// The IPFIX Files of the corpus are read without damage, but for those that
// are there for it, and written anew with all that can be added they decode to
// the same records.
func TestCorpusFiles(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(corpusDir, "*", "*.ipfix"))
	if err != nil || len(names) == 0 {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			msgs, _, err := readAll(bytes.NewReader(b))
			if bad := filepath.Base(name) == "bad-length-in-set.ipfix"; (err != nil) != bad {
				t.Fatalf("error %v", err)
			}
			if bytes := slices.Concat(msgs...); err == nil && len(bytes) != len(b) {
				t.Errorf("%d octets in messages, %d in the file", len(bytes), len(b))
			}
			var out bytes.Buffer
			w, err := file.NewWriter(&out, file.Config{Checksums: true, Window: true})
			if err != nil {
				t.Fatal(err)
			}
			before, after := ipfix.NewSession(ipfix.UDP), ipfix.NewSession(ipfix.UDP)
			var want, got []string
			for _, msg := range msgs {
				if _, err := before.Decode(msg, records(&want)); err != nil {
					continue // malformed
				}
				if err := w.Write(msg); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			again, _, err := readAll(&out)
			if err != nil {
				t.Fatal(err)
			}
			checked := 0
			for _, msg := range again {
				_, err := after.Decode(msg, func(s ipfix.DataSet) {
					found, err := file.VerifyChecksum(msg, s)
					if err != nil {
						t.Error(err)
					}
					if found {
						checked++
						return
					}
					records(&got)(s)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			got = slices.DeleteFunc(got, func(s string) bool { return s == "window" })
			if !slices.Equal(got, want) {
				t.Errorf("%d records became %d others", len(want), len(got))
			}
			if checked != len(again) {
				t.Errorf("%d messages of %d have a checksum", checked, len(again))
			}
		})
	}
}

// records appends each record, by Template and octets.
func records(all *[]string) func(ipfix.DataSet) {
	return func(s ipfix.DataSet) {
		for r, ok := s.Next(); ok; r, ok = s.Next() {
			if _, ok := s.Template.Index(0, ipfix.MinFlowStartMilliseconds); ok {
				*all = append(*all, "window")
				continue
			}
			*all = append(*all, string(r.Bytes()))
		}
	}
}

// Octets that change in a message are found by its checksum.
func TestChecksumDamage(t *testing.T) {
	whole := write(t, file.Config{Checksums: true}, messages(t, 1, 256, 1))
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 200 {
		b := bytes.Clone(whole)
		// Behind the Template, so that the checksum is still found.
		at := 60 + random.IntN(len(b)-60)
		b[at] ^= 1 << random.IntN(8)
		session := ipfix.NewSession(ipfix.TCP)
		keep := bytes.Clone(b)
		session.Decode(b, func(s ipfix.DataSet) { //nolint:errcheck // a malformed one is found anyhow
			if _, err := file.VerifyChecksum(b, s); errors.Is(err, file.ErrChecksum) {
				found++
			}
		})
		if !bytes.Equal(b, keep) {
			t.Fatal("VerifyChecksum changed the message")
		}
	}
	if found < 100 {
		t.Errorf("%d of 200 changes were found", found)
	}
}
