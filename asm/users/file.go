package users

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A File is what ParseFile read.
type File struct {
	Name     string
	Bindings []Binding
	Warnings []Warning         // at most MaxProblems
	Digest   [sha256.Size]byte // of the content
}

// MaxProblems is the most errors, and the most warnings, that are told of one
// file at once.
const MaxProblems = 20

// maxFile is the most octets that a file may have.
const maxFile = 1 << 30

// A Problem is one thing wrong with a file.
type Problem struct {
	File   string
	Line   int    // from 1; 0 for the file as a whole
	Column int    // in octets from 1; 0 for the line as a whole
	Key    string // or column of a CSV file; "" for none
	Value  string // as it stands there
	Text   string // what is wrong, and what would be right
}

// Error returns the problem in one line: file, line, column, key, value, text.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(":")
	if p.Key != "" {
		fmt.Fprintf(&b, " %s", p.Key)
	}
	if p.Value != "" {
		const most = 80
		value, dots := p.Value, ""
		if len(value) > most {
			value, dots = value[:most], " ..."
		}
		fmt.Fprintf(&b, " %q%s", value, dots)
	}
	return b.String() + " " + p.Text
}

// A ParseError holds everything that is wrong with a file, in the order of its
// lines.
type ParseError struct {
	File     string
	Problems []Problem // at most MaxProblems
	More     int       // how many there are beyond those
}

func (e *ParseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "users: read %s:", e.File)
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n\t%s", p.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n\tand %d more", e.More)
	}
	return b.String()
}

// Unwrap returns the problems.
func (e *ParseError) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}

// A Warning tells of bindings that hold one prefix at one time, or twice. The
// file counts all the same.
type Warning struct{ Problem }

// ParseFile reads the bindings of a CSV file (.csv) or a YAML file (.yaml,
// .yml).
//
// A CSV file begins with a line that names the columns, in any order. Of
//
//	prefix,user,from,until,realm,class,multiSession
//
// the first two are required. Lines that begin with # and empty ones are
// passed over. A YAML file is a list of mappings with the same keys. A prefix
// may be a single address; times are RFC 3339, and empty for ever.
//
// What is wrong with the content is a *ParseError with everything at once.
// Bindings of one prefix that overlap in time are a warning, since the one
// that begins later wins, unless two users' begin at the same moment.
func ParseFile(name string) (File, error) {
	f, _, err := parseFile(name, [sha256.Size]byte{})
	return f, err
}

// parseFile is ParseFile unless the content has the digest known: then it is
// not parsed again.
func parseFile(name string, known [sha256.Size]byte) (f File, same bool, err error) {
	f = File{Name: name}
	data, err := readFile(name)
	if err != nil {
		return f, false, fmt.Errorf("users: read %s: %w", name, err)
	}
	if f.Digest = sha256.Sum256(data); f.Digest == known {
		return f, true, nil
	}
	f.Bindings, f.Warnings, err = parse(name, data)
	return f, false, err
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	// With room for what it has, and for finding that this is all.
	data := bytes.NewBuffer(make([]byte, 0, min(info.Size(), maxFile)+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, maxFile+1)); err != nil {
		return nil, err
	}
	if data.Len() > maxFile {
		return nil, errors.New("larger than 1 GiB")
	}
	return data.Bytes(), nil
}

// parse reads the content of a file whose name says the format.
func parse(name string, data []byte) ([]Binding, []Warning, error) {
	p := &fileParser{file: name, names: map[string]string{}}
	data = trimBOM(data)
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		p.csv(data)
	case ".yaml", ".yml":
		p.yaml(data)
	default:
		p.problem(Problem{Text: "is no users file by its name: it must end in .csv, .yaml or .yml"})
	}
	return p.result()
}

// trimBOM drops the byte order mark that some editors begin a file with.
func trimBOM(data []byte) []byte {
	if s := "\xef\xbb\xbf"; len(data) >= len(s) && string(data[:len(s)]) == s {
		return data[len(s):]
	}
	return data
}
