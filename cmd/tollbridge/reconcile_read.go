package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/reconcile"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// A sideReader hands the records of a side to add, in any order. It returns
// which of an outbox they are if it was an archive.
type sideReader func(ctx context.Context, only recordFilter, add func(reconcile.Record) error) ([]spool.Range, error)

// sideOf returns how a side is read, by what its name says.
func sideOf(name string) (sideReader, error) {
	info, err := os.Stat(name)
	plain := strings.TrimSuffix(name, ".zst")
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() && archived(name):
		return func(ctx context.Context, _ recordFilter, add func(reconcile.Record) error) ([]spool.Range, error) {
			return readArchive(ctx, name, add)
		}, nil
	case info.IsDir():
		return func(ctx context.Context, only recordFilter, add func(reconcile.Record) error) ([]spool.Range, error) {
			return nil, readOutbox(ctx, name, only, add)
		}, nil
	case filepath.Base(name) == "cdr.db":
		return func(ctx context.Context, _ recordFilter, add func(reconcile.Record) error) ([]spool.Range, error) {
			return nil, readCDRs(ctx, filepath.Dir(name), add)
		}, nil
	case strings.HasSuffix(plain, ".csv"):
		return fileReader(name, readCSV), nil
	case strings.HasSuffix(plain, ".json"), strings.HasSuffix(plain, ".jsonl"):
		return fileReader(name, readJSON), nil
	}
	return nil, errors.New("is neither a state directory, nor an archive, nor a file named cdr.db, .csv, .json or .jsonl, or one of these with .zst")
}

// archived reports whether an archive is in dir.
func archived(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "manifest.jsonl"))
	return err == nil
}

// readArchive hands over an archive's records, and returns which they are.
func readArchive(ctx context.Context, dir string, add func(reconcile.Record) error) ([]spool.Range, error) {
	return archive.ReadRecords(dir, func(r archive.Record) error {
		t, err := recordType(r.Type)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		return add(reconcile.Record{SessionID: r.SessionID, Number: r.Number, Type: t, User: r.User, Usage: r.Usage, State: r.State})
	})
}

// readAtOnce is how many rows of a database are read with one query.
const readAtOnce = 10_000

func readOutbox(ctx context.Context, dir string, only recordFilter, add func(reconcile.Record) error) error {
	s, err := spool.OpenReadOnly(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for after := uint64(0); ; {
		list, err := s.List(ctx, spool.Filter{After: after, Limit: readAtOnce})
		if err != nil {
			return err
		}
		for i := range list {
			l := &list[i]
			after = l.ID
			if only.realm != "" && !strings.EqualFold(l.Record.Realm, only.realm) ||
				slices.ContainsFunc(only.archived, func(r spool.Range) bool { return r.First <= l.ID && l.ID <= r.Last }) {
				continue
			}
			r := &l.Record
			if err := add(reconcile.Record{SessionID: r.SessionID, Number: r.Number, Type: r.Type, User: r.User, Usage: r.Usage, State: l.State.String()}); err != nil {
				return err
			}
		}
		if len(list) < readAtOnce {
			return nil
		}
	}
}

// readCDRs hands over CDRs, and those that contradict one: they are records
// that came twice.
func readCDRs(ctx context.Context, dir string, add func(reconcile.Record) error) error {
	c, err := spool.OpenCDRsReadOnly(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	give := func(cdr *acct.CDR, state string) error {
		return add(reconcile.Record{SessionID: cdr.SessionID, Number: cdr.Number, Type: cdr.Type, User: cdr.User, Usage: cdr.Usage, State: state})
	}
	for after := uint64(0); ; {
		list, err := c.List(ctx, spool.CDRFilter{After: after, Limit: readAtOnce})
		if err != nil {
			return err
		}
		for i := range list {
			after = list[i].ID
			if err := give(&list[i].CDR, "received"); err != nil {
				return err
			}
		}
		if len(list) < readAtOnce {
			break
		}
	}
	conflicts, err := c.Conflicts(ctx)
	if err != nil {
		return err
	}
	for i := range conflicts {
		if err := give(&conflicts[i].CDR, "conflict"); err != nil {
			return err
		}
	}
	return nil
}

func fileReader(name string, read func(io.Reader, func(reconcile.Record) error) error) sideReader {
	return func(ctx context.Context, _ recordFilter, add func(reconcile.Record) error) ([]spool.Range, error) {
		f, err := openPlain(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return nil, read(f, func(r reconcile.Record) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return add(r)
		})
	}
}

// openPlain opens a file, compressed or not.
func openPlain(name string) (io.ReadCloser, error) {
	if strings.HasSuffix(name, ".zst") {
		return archive.OpenFile(name)
	}
	return os.Open(name)
}

// recordType reads the name of an Accounting-Record-Type, or its number.
func recordType(s string) (acct.RecordType, error) {
	for t := acct.Event; t <= acct.Stop; t++ {
		if strings.EqualFold(s, t.String()) || s == strconv.Itoa(int(t)) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("type %q is none of EVENT, START, INTERIM, STOP", s)
}

// readCSV reads a table with a header. Its errors name the line.
func readCSV(in io.Reader, add func(reconcile.Record) error) error {
	r := csv.NewReader(bufio.NewReaderSize(in, 1<<20))
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("line 1: no header: %w", err)
	}
	columns := map[string]int{}
	for i, name := range header {
		columns[strings.Clone(name)] = i
	}
	for _, name := range []string{"session_id", "number", "type", "user", "input_octets", "output_octets"} {
		if _, ok := columns[name]; !ok {
			return fmt.Errorf("line 1: no column %s", name)
		}
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err // it names the line
		}
		line, _ := r.FieldPos(0)
		record, err := csvRecord(row, columns)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if err := add(record); err != nil {
			return err
		}
	}
}

func csvRecord(row []string, columns map[string]int) (r reconcile.Record, err error) {
	cell := func(name string) string {
		if i, ok := columns[name]; ok {
			return row[i]
		}
		return ""
	}
	number := func(name string, most uint64) uint64 {
		s := cell(name)
		if s == "" || err != nil {
			return 0
		}
		n, e := strconv.ParseUint(s, 10, 64)
		if e != nil || n > most {
			err = fmt.Errorf("%s %q is no number up to %d", name, s, most)
		}
		return n
	}
	r = reconcile.Record{SessionID: strings.Clone(cell("session_id")), User: strings.Clone(cell("user")), State: strings.Clone(cell("state"))}
	if r.SessionID == "" {
		return r, errors.New("session_id is empty")
	}
	if r.Type, err = recordType(cell("type")); err != nil {
		return r, err
	}
	r.Number = uint32(number("number", math.MaxUint32))
	r.Usage = acct.Usage{
		InputOctets: number("input_octets", math.MaxUint64), OutputOctets: number("output_octets", math.MaxUint64),
		InputPackets: number("input_packets", math.MaxUint64), OutputPackets: number("output_packets", math.MaxUint64),
	}
	return r, err
}

// readJSON reads objects: those of one array, or one after the other. Its
// errors count them.
func readJSON(in io.Reader, add func(reconcile.Record) error) error {
	b := bufio.NewReaderSize(in, 1<<20)
	for {
		first, err := b.Peek(1)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !strings.ContainsRune(" \t\r\n", rune(first[0])) {
			break
		}
		b.Discard(1) //nolint:errcheck // it is there
	}
	first, _ := b.Peek(1)
	d := json.NewDecoder(b)
	if first[0] == '[' {
		if _, err := d.Token(); err != nil {
			return err
		}
	}
	for n := 1; ; n++ {
		if first[0] == '[' && !d.More() {
			return nil
		}
		var v struct {
			reconcile.Record
			Type string `json:"type"`
		}
		err := d.Decode(&v)
		if err == io.EOF && first[0] != '[' {
			return nil
		}
		if err == nil && v.SessionID == "" {
			err = errors.New("session_id is missing")
		}
		if err == nil {
			v.Record.Type, err = recordType(v.Type)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if err := add(v.Record); err != nil {
			return err
		}
	}
}
