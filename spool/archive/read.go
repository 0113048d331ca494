package archive

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// open opens a compressed file for reading.
func openFile(dir, name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &opened{z, f}, nil
}

type opened struct {
	*zstd.Decoder
	f *os.File
}

// Close implements io.Closer.
func (o *opened) Close() error {
	o.Decoder.Close()
	return o.f.Close()
}

// ReadJournal visits what the archive in dir has of the journal, in order: at
// first the opening that its oldest Segment begins with (zero if that is the
// journal's beginning), then each entry.
func ReadJournal(dir string, begin func(spool.Opening) error, visit func(acct.Entry) error) error {
	segments, _, err := Read(dir)
	if err != nil {
		return err
	}
	begun := false
	for _, s := range Kept(segments) {
		if s.Kind != Journal {
			continue
		}
		if !begun {
			o, err := readOpening(dir, &s)
			if err == nil {
				err = begin(o)
			}
			if err != nil {
				return fmt.Errorf("archive: segment %d: %w", s.Number, err)
			}
			begun = true
		}
		if err := readEntries(dir, &s, visit); err != nil {
			return fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
	}
	return nil
}

// ReadJournalAt is ReadJournal of the one Segment that has a position of the
// journal. The error matches acct.ErrNoEntry where none that is kept has it.
func ReadJournalAt(dir string, position uint64, begin func(spool.Opening) error, visit func(acct.Entry) error) error {
	segments, _, err := Read(dir)
	if err != nil {
		return err
	}
	for _, s := range Kept(segments) {
		if s.Kind != Journal || position < s.First || position > s.Last {
			continue
		}
		o, err := readOpening(dir, &s)
		if err == nil {
			err = begin(o)
		}
		if err == nil {
			err = readEntries(dir, &s, visit)
		}
		if err != nil {
			return fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
		return nil
	}
	return fmt.Errorf("archive: position %d of the journal is in no segment of %s: %w", position, dir, acct.ErrNoEntry)
}

func (s *Segment) file(suffix string) string {
	for _, f := range s.Files {
		if strings.HasSuffix(f.Name, suffix) {
			return f.Name
		}
	}
	return ""
}

func readOpening(dir string, s *Segment) (spool.Opening, error) {
	name := s.file("opening.jsonl.zst")
	if name == "" {
		return spool.Opening{Checkpoint: acct.Checkpoint{NextSuspended: 1}}, nil
	}
	f, err := openFile(dir, name)
	if err != nil {
		return spool.Opening{}, err
	}
	defer f.Close()
	return spool.ReadOpening(f)
}

func readEntries(dir string, s *Segment, visit func(acct.Entry) error) error {
	in, err := openFile(dir, s.file("entries.jsonl.zst"))
	if err != nil {
		return err
	}
	defer in.Close()
	messages := make(map[string]*messageFile)
	defer func() {
		for _, m := range messages {
			_ = m.Close()
		}
	}()
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var l Entry
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		e := acct.Entry{Position: l.Position, Kind: acct.EntryKind(l.Kind), Time: l.Time, Session: l.Session, Data: l.Data}
		if l.File != "" {
			m := messages[l.File]
			if m == nil {
				f, err := openFile(dir, filepath.Base(l.File))
				if err != nil {
					return err
				}
				m = &messageFile{ReadCloser: f}
				messages[l.File] = m
			}
			if e.Data, err = m.message(l.Place); err != nil {
				return fmt.Errorf("entry %d, %s at %d: %w", l.Position, l.File, l.Offset, err)
			}
		}
		if err := visit(e); err != nil {
			return err
		}
	}
}

// A messageFile gives the Messages of a file in their order.
type messageFile struct {
	io.ReadCloser
	at int
}

// message returns the Message at p as it came.
func (m *messageFile) message(p Place) ([]byte, error) {
	if p.Offset < m.at || p.Octets < 0 || p.Octets > 1<<16 {
		return nil, ErrBroken
	}
	if _, err := io.CopyN(io.Discard, m, int64(p.Offset-m.at)); err != nil {
		return nil, err
	}
	b := make([]byte, p.Octets)
	if _, err := io.ReadFull(m, b); err != nil {
		return nil, err
	}
	m.at = p.Offset + p.Octets
	return p.restore(b)
}
