package main

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

	"github.com/spf13/cobra"
)

// A format is how a listing is printed.
type format string

// formatFlag adds -o to a command that lists something.
func formatFlag(cmd *cobra.Command) *format {
	f := format("table")
	cmd.Flags().VarP(&f, "output", "o", "how to print: table, json or csv")
	return &f
}

func (f *format) String() string { return string(*f) }

// Type is the flag's type in help texts.
func (f *format) Type() string { return "FORMAT" }

// Set refuses what is not a format.
func (f *format) Set(s string) error {
	switch s {
	case "table", "json", "csv":
		*f = format(s)
		return nil
	}
	return fmt.Errorf("%q is not one of table, json, csv", s)
}

// A table is a listing. Its JSON form is value, which has more detail than
// the rows where that helps.
type table struct {
	columns []string
	rows    [][]string
	value   any
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// print writes the listing to w: for people, as one JSON value, or as CSV
// with a header.
func (t *table) print(w io.Writer, f format) error {
	if f == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(t.value)
	}
	l := newListing(w, f, t.columns, len(t.rows))
	for _, row := range t.rows {
		if err := l.add(nil, row); err != nil {
			return err
		}
	}
	return l.end()
}

// A listing prints a table of any length row by row, and keeps no more than a
// block of it.
type listing struct {
	f     format
	block int // rows of a table for people that are aligned together
	w     *bufio.Writer
	csv   *csv.Writer
	tab   *tabwriter.Writer
	n     int
}

// listingBlock is the block of a listing whose length is not known.
const listingBlock = 1000

func newListing(w io.Writer, f format, columns []string, block int) *listing {
	l := &listing{f: f, block: max(block, 1), w: bufio.NewWriter(w)}
	switch f {
	case "json":
	case "csv":
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

// add prints a row: as cells or, in JSON, as value.
func (l *listing) add(value any, cells []string) error {
	l.n++
	switch l.f {
	case "json":
		separator := ","
		if l.n == 1 {
			separator = "["
		}
		l.w.WriteString(separator) //nolint:errcheck // the next one tells
		return json.NewEncoder(l.w).Encode(value)
	case "csv":
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

// end prints what is left.
func (l *listing) end() error {
	var err error
	switch l.f {
	case "json":
		end := "]\n"
		if l.n == 0 {
			end = "[]\n"
		}
		_, err = l.w.WriteString(end)
	case "csv":
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
