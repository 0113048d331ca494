package reconcile

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
	"tollbridge/dict/avp"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// A Filter leaves out what is not to be compared.
type Filter struct {
	Host     string        // the DiameterIdentity that begins Session-Ids; "" for any
	Realm    string        // the Destination-Realm; "" for any
	archived []spool.Range // IDs of the outbox that were read elsewhere
}

// has reports whether a record of a session and realm is wanted.
func (f Filter) has(sessionID, realm string) bool {
	if f.Realm != "" && !strings.EqualFold(f.Realm, realm) {
		return false
	}
	if f.Host == "" {
		return true
	}
	rest, ok := strings.CutPrefix(sessionID, f.Host)
	return ok && strings.HasPrefix(rest, ";")
}

// ReadSide hands all records of a side to add. The records of an archive are
// left out of the state directories behind it.
func ReadSide(ctx context.Context, names string, only Filter, add func(Record) error) error {
	for name := range strings.SplitSeq(names, ",") {
		read, err := sideOf(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		archived, err := read(ctx, only, add)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		only.archived = append(only.archived, archived...)
	}
	return nil
}

// A sideReader hands the records of a side to add, in any order. It returns
// which of an outbox they are if it was an archive.
type sideReader func(ctx context.Context, only Filter, add func(Record) error) ([]spool.Range, error)

// sideOf returns how a side is read, by what its name says.
func sideOf(name string) (sideReader, error) {
	info, err := os.Stat(name)
	plain := strings.TrimSuffix(name, ".zst")
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() && archived(name):
		return func(ctx context.Context, only Filter, add func(Record) error) ([]spool.Range, error) {
			return readArchive(ctx, name, only, add)
		}, nil
	case info.IsDir():
		return func(ctx context.Context, only Filter, add func(Record) error) ([]spool.Range, error) {
			return nil, readOutbox(ctx, name, only, add)
		}, nil
	case filepath.Base(name) == "cdr.db":
		return func(ctx context.Context, only Filter, add func(Record) error) ([]spool.Range, error) {
			return nil, readCDRs(ctx, filepath.Dir(name), only, add)
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
func readArchive(ctx context.Context, dir string, only Filter, add func(Record) error) ([]spool.Range, error) {
	return archive.ReadRecords(dir, func(r archive.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var frozen acct.Record
		if err := frozen.UnmarshalBinary(r.Content); err != nil {
			return err
		}
		if !only.has(r.SessionID, frozen.Realm) {
			return nil
		}
		return add(compared(&frozen, r.State))
	})
}

// compared returns r as far as two sides must agree on it.
func compared(r *acct.Record, state string) Record {
	return Record{
		SessionID: r.SessionID, Number: r.Number, Type: r.Type, User: r.User, Usage: r.Usage,
		Credit: isCredit(r.Corrects), State: state,
	}
}

// isCredit reports whether a record, which may correct another, takes usage
// away.
func isCredit(c *acct.Correction) bool { return c != nil && c.Credit }

// readAtOnce is how many rows of a database are read with one query.
const readAtOnce = 10_000

func readOutbox(ctx context.Context, dir string, only Filter, add func(Record) error) error {
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
			if !only.has(l.Record.SessionID, l.Record.Realm) ||
				slices.ContainsFunc(only.archived, func(r spool.Range) bool { return r.First <= l.ID && l.ID <= r.Last }) {
				continue
			}
			if err := add(compared(&l.Record, l.State.String())); err != nil {
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
func readCDRs(ctx context.Context, dir string, only Filter, add func(Record) error) error {
	c, err := spool.OpenCDRsReadOnly(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	give := func(cdr *acct.CDR, state string) error {
		if !only.has(cdr.SessionID, destinationRealm(cdr)) {
			return nil
		}
		return add(Record{
			SessionID: cdr.SessionID, Number: cdr.Number, Type: cdr.Type, User: cdr.User, Usage: cdr.Usage,
			Credit: isCredit(cdr.Corrects), State: state,
		})
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

// destinationRealm returns the realm that a CDR's request was for.
func destinationRealm(c *acct.CDR) string {
	a, _ := avp.Find(c.AVPs, avp.DestinationRealm, 0)
	return string(a.Data)
}

func fileReader(name string, read func(io.Reader, Filter, func(Record) error) error) sideReader {
	return func(ctx context.Context, only Filter, add func(Record) error) ([]spool.Range, error) {
		f, err := openPlain(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return nil, read(f, only, func(r Record) error {
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

// recordType reads the name of an Accounting-Record-Type, or its number, and
// what listings say behind that of a record which corrects another.
func recordType(s string) (t acct.RecordType, credit bool, err error) {
	name, what, _ := strings.Cut(s, " ")
	for t := acct.Event; t <= acct.Stop; t++ {
		if (strings.EqualFold(name, t.String()) || name == strconv.Itoa(int(t))) && (what == "" || what == "credit" || what == "debit") {
			return t, what == "credit", nil
		}
	}
	return 0, false, fmt.Errorf("type %q is none of EVENT, START, INTERIM, STOP", s)
}

// readCSV reads a table with a header. Its errors name the line.
func readCSV(in io.Reader, only Filter, add func(Record) error) error {
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
	required := []string{"session_id", "number", "type", "user", "input_octets", "output_octets"}
	if only.Realm != "" {
		required = append(required, "realm")
	}
	for _, name := range required {
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
		realm := ""
		if only.Realm != "" {
			realm = row[columns["realm"]]
		}
		if !only.has(record.SessionID, realm) {
			continue
		}
		if err := add(record); err != nil {
			return err
		}
	}
}

func csvRecord(row []string, columns map[string]int) (r Record, err error) {
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
	r = Record{SessionID: strings.Clone(cell("session_id")), User: strings.Clone(cell("user")), State: strings.Clone(cell("state"))}
	if r.SessionID == "" {
		return r, errors.New("session_id is empty")
	}
	if r.Type, r.Credit, err = recordType(cell("type")); err != nil {
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
func readJSON(in io.Reader, only Filter, add func(Record) error) error {
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
			Record
			Type     string           `json:"type"`
			Realm    *string          `json:"realm"`
			Corrects *acct.Correction `json:"corrects"`
			Content  []byte           `json:"content"` // of an archive: all of it
		}
		err := d.Decode(&v)
		if err == io.EOF && first[0] != '[' {
			return nil
		}
		if err == nil && v.SessionID == "" {
			err = errors.New("session_id is missing")
		}
		if err == nil {
			v.Record.Type, v.Credit, err = recordType(v.Type)
			v.Credit = v.Credit || isCredit(v.Corrects)
		}
		if err == nil && v.Content != nil {
			var frozen acct.Record
			err = frozen.UnmarshalBinary(v.Content)
			v.Record, v.Realm = compared(&frozen, v.State), &frozen.Realm
		}
		if err == nil && only.Realm != "" && v.Realm == nil {
			err = errors.New("realm is missing, by which --realm chooses")
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		realm := ""
		if v.Realm != nil {
			realm = *v.Realm
		}
		if !only.has(v.SessionID, realm) {
			continue
		}
		if err := add(v.Record); err != nil {
			return err
		}
	}
}
