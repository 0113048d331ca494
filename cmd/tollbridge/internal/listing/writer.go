package listing

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"
)

// A Writer prints a table of any length row by row, and keeps no more than a
// block of it.
type Writer struct {
	f     Format
	block int // rows of a table for people that are aligned together
	w     *bufio.Writer
	csv   *csv.Writer
	tab   *tabwriter.Writer
	n     int
}

// Block is the block of a listing whose length is not known.
const Block = 1000

// NewWriter returns a Writer, of which so many rows at a time are aligned.
func NewWriter(w io.Writer, f Format, columns []string, block int) *Writer {
	l := &Writer{f: f, block: max(block, 1), w: bufio.NewWriter(w)}
	switch f {
	case JSON:
	case CSV:
		l.csv = csv.NewWriter(l.w)
		l.csv.Write(columns) //nolint:errcheck // the writer below keeps the error
	default:
		l.tab = tabwriter.NewWriter(l.w, 0, 0, 2, ' ', 0)
		upper := make([]string, len(columns))
		for i, c := range columns {
			upper[i] = strings.ToUpper(strings.ReplaceAll(c, "_", " "))
		}
		fmt.Fprintln(l.tab, strings.Join(upper, "\t"))
	}
	return l
}

// Add prints a row: as cells or, in JSON, as value.
func (l *Writer) Add(value any, cells []string) error {
	l.n++
	switch l.f {
	case JSON:
		separator := ","
		if l.n == 1 {
			separator = "["
		}
		l.w.WriteString(separator) //nolint:errcheck // the next one tells
		return json.NewEncoder(l.w).Encode(value)
	case CSV:
		return l.csv.Write(cells)
	}
	for i, c := range cells {
		if i > 0 {
			io.WriteString(l.tab, "\t") //nolint:errcheck // the next one tells
		}
		io.WriteString(l.tab, printable(c)) //nolint:errcheck // likewise
	}
	if _, err := io.WriteString(l.tab, "\n"); err != nil || l.n%l.block != 0 {
		return err
	}
	return l.tab.Flush()
}

// Len returns how many rows were added.
func (l *Writer) Len() int { return l.n }

// End prints what is left.
func (l *Writer) End() error {
	var err error
	switch l.f {
	case JSON:
		end := "]\n"
		if l.n == 0 {
			end = "[]\n"
		}
		_, err = l.w.WriteString(end)
	case CSV:
		l.csv.Flush()
		err = l.csv.Error()
	default:
		err = l.tab.Flush()
	}
	if err != nil {
		return err
	}
	return l.w.Flush()
}

// printable returns s with what could move the cursor or break the columns
// escaped: names and reasons come from exporters and peers.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 && utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
