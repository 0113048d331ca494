package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDocsNameTestsThatExist looks up each test that a page of docs gives as
// the proof of a sentence, written `package.TestName`; cmd is this package.
func TestDocsNameTestsThatExist(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../docs/*.md", "../../docs/adr/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no pages %s (%v)", pattern, err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
			dir := m[1]
			if dir == "cmd" {
				dir = "cmd/tollbridge"
			}
			if !hasTest(t, filepath.Join("../..", dir), m[2]) {
				t.Errorf("%s names %s.%s, which is not there", filepath.Base(page), m[1], m[2])
			}
		}
	}
}

var namedTest = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)`")

// TestEveryRowOfReliabilityIsShown has each requirement of RFC 2975 in
// docs/reliability.md name a test, or measurements.
func TestEveryRowOfReliabilityIsShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	column, rows := -1, 0 // of "shown by" in the table at hand; -1 outside
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			column = -1
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if column < 0 {
			column = slices.IndexFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "shown by" })
			if column < 0 {
				t.Fatalf("line %d: a table without a column \"shown by\"", n+1)
			}
			continue
		}
		if strings.HasPrefix(line, "| --- |") {
			continue
		}
		rows++
		if shown := cells[column]; !namedTest.MatchString(shown) && !strings.Contains(shown, "(performance.md)") {
			t.Errorf("line %d: nothing shows %q", n+1, strings.TrimSpace(cells[0]))
		}
	}
	if rows < 30 {
		t.Errorf("%d rows", rows)
	}
}

// TestEveryRowOfRFC7011IsShown has each row of docs/rfc7011.md name a test, and
// each section of RFC 7011 with a MUST in it have a row.
func TestEveryRowOfRFC7011IsShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/rfc7011.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{} // sections
	var columns []string      // of the table at hand
	rows := 0
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			columns = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if columns == nil {
			for _, c := range cells {
				columns = append(columns, strings.TrimSpace(c))
			}
			continue
		}
		if strings.HasPrefix(line, "| --- |") || columns[len(columns)-1] != "Test" {
			continue
		}
		rows++
		if !namedTest.MatchString(cells[len(cells)-1]) {
			t.Errorf("line %d: nothing shows %q", n+1, strings.TrimSpace(cells[1]))
		}
		if columns[0] == "§" {
			for s := range strings.SplitSeq(cells[0], ",") {
				said[strings.TrimSpace(s)] = true
			}
		}
	}
	if rows < 100 {
		t.Errorf("%d rows", rows)
	}
	for _, section := range []string{
		"3.1", "3.2", "3.3.1", "3.3.2", "3.4.1", "3.4.2.1", "3.4.2.2", "4", "4.1", "4.2", "4.3", "4.4", "5.2",
		"6.1.1", "6.1.2", "6.1.3", "6.1.4", "6.1.6", "6.1.9", "6.2", "7", "8", "8.1", "8.2", "8.3", "8.4", "9", "9.1", "9.2", "9.3",
		"10", "10.1", "10.2.1", "10.2.2", "10.2.4", "10.3.2", "10.3.3", "10.4.1", "10.4.4", "11.1", "11.3", "11.4", "11.6", "11.7",
	} {
		if !said[section] {
			t.Errorf("Section %s has no row", section)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}

// TestDocsNameCommandsThatExist reads each command line of ours in a page, in
// the examples of the commands themselves, and in what the program says, as the
// program would: its sub-command, flags and arguments.
func TestDocsNameCommandsThatExist(t *testing.T) {
	n := 0
	check := func(where, line string, whole bool) {
		n++
		if err := readCommand(line, whole); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../docs/adr/*.md", "../../examples/*"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("no pages %s (%v)", pattern, err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			joined := strings.ReplaceAll(string(text), "\\\n", "")
			for _, m := range indentedCommand.FindAllStringSubmatch(joined, -1) {
				check(page, m[1], true)
			}
			for _, m := range quotedCommand.FindAllStringSubmatch(joined, -1) {
				check(page, m[1]+m[2]+m[3], false)
			}
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, m := range indentedCommand.FindAllStringSubmatch("\n"+strings.ReplaceAll(c.Example, "\\\n", ""), -1) {
			check(c.CommandPath()+" --help", m[1], true)
		}
		for _, m := range quotedCommand.FindAllStringSubmatch(c.Long, -1) {
			check(c.CommandPath()+" --help", m[1]+m[2]+m[3], false)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	for _, dir := range []string{".", "../../asm", "../../spool", "../../aaaclient"} {
		sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(sources) == 0 {
			t.Fatalf("no sources in %s (%v)", dir, err)
		}
		for _, source := range sources {
			if strings.HasSuffix(source, "_test.go") {
				continue
			}
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range quotedCommand.FindAllStringSubmatch(strings.ReplaceAll(string(text), `\"`, `"`), -1) {
				check(source, m[1]+m[2]+m[3], false)
			}
		}
	}
	if n < 100 {
		t.Errorf("%d commands were found", n)
	}
}

var (
	indentedCommand = regexp.MustCompile(`(?m)^ +tollbridge +([a-z][^#|>;&\n]*)`)
	quotedCommand   = regexp.MustCompile("(?:`tollbridge ([a-z][^`]*)`|\"tollbridge ([a-z][^\"]*)\"|[(]tollbridge ([a-z][^)]*)[)])")
	shellWord       = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// readCommand parses a command line, the arguments too if it is a whole one.
func readCommand(line string, whole bool) error {
	words := shellWord.FindAllString(line, -1)
	for i, w := range words {
		words[i] = strings.Trim(w, `'"`)
	}
	c, rest, err := newRoot().Find(words)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	args := c.Flags().Args()
	switch {
	case whole:
		return c.ValidateArgs(args)
	case c.HasSubCommands() && len(args) > 0 && c.Args == nil:
		return fmt.Errorf("%q has no command %q", c.CommandPath(), args[0])
	}
	return nil
}
