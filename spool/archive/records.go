package archive

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"tollbridge/spool"
)

// ReadRecords visits the settled accounting records that the archive in dir
// has, Segment by Segment, and returns which of the outbox they are.
func ReadRecords(dir string, visit func(Record) error) ([]spool.Range, error) {
	segments, _, err := Read(dir)
	if err != nil {
		return nil, err
	}
	var ids []spool.Range
	for _, s := range Kept(segments) {
		if s.Kind != CDRs {
			continue
		}
		if err := readRecords(dir, &s, visit); err != nil {
			return nil, fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
		ids = append(ids, s.IDs...)
	}
	return ids, nil
}

func readRecords(dir string, s *Segment, visit func(Record) error) error {
	in, err := openFile(dir, s.file("cdr.jsonl.zst"))
	if err != nil {
		return err
	}
	defer in.Close()
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var r Record
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := visit(r); err != nil {
			return err
		}
	}
}

// OpenFile opens one of an archive's compressed files by its name, to be read
// as it was before.
func OpenFile(name string) (io.ReadCloser, error) {
	return openFile(filepath.Dir(name), filepath.Base(name))
}
