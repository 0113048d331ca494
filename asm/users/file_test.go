package users

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func write(tb testing.TB, name, content string) string {
	tb.Helper()
	name = filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

func TestParseFile(t *testing.T) {
	jan := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []Binding{
		{Prefix: bind("192.0.2.11/32", "", 0, 0).Prefix, User: "alice", From: jan, Until: jan.Add(36*time.Hour + 500*time.Millisecond)},
		{Prefix: bind("2001:db8:1::/56", "", 0, 0).Prefix, User: "007", Options: Options{Realm: "example.net", MultiSession: "m;1", Class: "gold, or so"}},
		{Prefix: bind("192.0.2.12/32", "", 0, 0).Prefix, User: `bob "b"`, Until: jan},
		{Prefix: bind("198.51.100.0/24", "", 0, 0).Prefix, User: "c"},
	}
	for _, c := range []struct{ name, file, content string }{
		{"CSV", "u.csv", `# who is who
prefix,user,from,until,realm,class,multiSession

192.0.2.11/32,alice,2026-01-01T00:00:00Z,2026-01-02T12:00:00.5Z,,,
2001:db8:1::/56 , 007 ,,,example.net,"gold, or so",m;1
# 192.0.2.13,nobody,,,,,
192.0.2.12,"bob ""b""",,2026-01-01T01:00:00+01:00,,,
::ffff:198.51.100.0/120,c,,,,,
`},
		{"CSV with other columns, CRLF and byte order mark", "U.CSV", "\xef\xbb\xbfmultiSession,user,prefix,until,class,from,realm\r\n" +
			",alice,192.0.2.11,2026-01-02T12:00:00.5Z,,2026-01-01T00:00:00Z,\r\n" +
			"m;1,007,2001:db8:1::/56,,\"gold, or so\",,example.net\r\n" +
			",\"bob \"\"b\"\"\",::ffff:192.0.2.12,2026-01-01T00:00:00Z,,,\r\n" +
			",c,198.51.100.0/24,,,,\r\n"},
		{"YAML", "u.yaml", `# who is who
- prefix: 192.0.2.11/32
  user: alice
  from: 2026-01-01T00:00:00Z
  until: 2026-01-02T12:00:00.5Z # half a second more
- {prefix: "2001:db8:1::/56", user: 007, realm: example.net, class: "gold, or so", multiSession: m;1}
- prefix: 192.0.2.12
  user: 'bob "b"'
  from:
  until: "2026-01-01T01:00:00+01:00"
- user: c
  prefix: ::ffff:198.51.100.0/120
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFile(write(t, c.file, c.content))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(f.Bindings, want) {
				t.Errorf("got  %v\nwant %v", f.Bindings, want)
			}
			if len(f.Warnings) != 0 {
				t.Errorf("warnings %v", f.Warnings)
			}
		})
	}
}

func TestParseFileOfNobody(t *testing.T) {
	for name, content := range map[string]string{
		"header.csv": "prefix,user\n", "empty.yaml": "", "comment.yml": "# nobody\n", "null.yaml": "null\n", "list.yaml": "[]\n",
	} {
		if f, err := ParseFile(write(t, name, content)); err != nil || len(f.Bindings) != 0 {
			t.Errorf("%s: %v, %v", name, f.Bindings, err)
		}
	}
}

// TestParseFileErrors has a file and what is said about it, line by line,
// without the directory.
func TestParseFileErrors(t *testing.T) {
	const address = "an address such as 192.0.2.1 or a prefix such as 2001:db8::/56 is expected"
	const when = "is no RFC 3339 time: write it like 2026-01-31T08:30:00+01:00, or leave it empty for ever"
	for _, c := range []struct {
		name, file, content string
		want                []string
	}{
		{"several at once", "u.csv", `prefix,user,from,until
10.0.0.1/24,a,,
10.0.0.300,b,yesterday,2026-01-01
,c,,
10.0.0.2,,,
10.0.0.3,d,2026-01-02T00:00:00Z,2026-01-01T00:00:00Z
10.0.0.4,e
fe80::1%eth0,f,,
::ffff:0:0/90,g,,
10.0.0.5/33,h,,
10.0.0.6,i,1969-12-31T00:00:00Z,
`, []string{
			`u.csv:2:1: prefix "10.0.0.1/24" has host bits set: write 10.0.0.0/24 for the prefix or 10.0.0.1 for the address`,
			`u.csv:3:1: prefix "10.0.0.300" is no address: ` + address,
			`u.csv:3:14: from "yesterday" ` + when,
			`u.csv:3:24: until "2026-01-01" ` + when,
			`u.csv:4:1: prefix is missing: ` + address,
			`u.csv:5:10: user is missing: whose is the prefix?`,
			`u.csv:6:33: until "2026-01-01T00:00:00Z" is not after from, which is 2026-01-02T00:00:00Z`,
			`u.csv:7: has 2 fields: the first line names 4 columns`,
			`u.csv:8:1: prefix "fe80::1%eth0" has a zone, which means nothing beyond one host: write fe80::1`,
			`u.csv:9:1: prefix "::ffff:0:0/90" is wider than all IPv4-mapped addresses: write 0.0.0.0/0 if they are meant`,
			`u.csv:10:1: prefix "10.0.0.5/33" is no prefix: ` + address,
			`u.csv:11:12: from "1969-12-31T00:00:00Z" is outside of 1970 to 9999: leave it empty for ever`,
		}},
		{"unknown and missing columns", "u.csv", "# c\nprefix,name,prefix\n10.0.0.1,a,b\n", []string{
			`u.csv:2: column "user" is missing: the first line must name prefix and user`,
			`u.csv:2:8: column "name" is unknown: the first line may name prefix, user, from, until, realm, class, multiSession, vrf, ports and timeZone`,
			`u.csv:2:13: column "prefix" is named twice`,
		}},
		{"no header", "u.csv", "# nothing\n", []string{
			`u.csv: is empty: the first line must name the columns, such as prefix,user,from,until`,
		}},
		{"quotes", "u.csv", "prefix,user\n10.0.0.300,a\n10.0.0.1,a \"b\"\n", []string{
			`u.csv:2:1: prefix "10.0.0.300" is no address: ` + address,
			`u.csv:3:12: has a quote within a field: put the field in quotes and write "" for each one inside`,
		}},
		{"an open quote", "u.csv", "prefix,user\n10.0.0.1,\"a\n10.0.0.2,b\n10.0.0.3,c\n", []string{
			`u.csv:2: has text after a closing quote, or no closing quote: a field in quotes ends with one, and has "" for each one inside`,
		}},
		{"names", "u.csv", "prefix,user,realm\n10.0.0.1,\"a\nb\",\n10.0.0.2,\xff,\n10.0.0.3,c," + strings.Repeat("x", 254) + "\n", []string{
			`u.csv:2:10: user "a\nb" has a control character`,
			`u.csv:4:10: user "\xff" is not UTF-8`,
			`u.csv:5:12: realm "` + strings.Repeat("x", 80) + `" ... has 254 octets: at most 253 are allowed`,
		}},
		{"the same from", "u.csv", `prefix,user,from
10.0.0.1,a,
10.0.0.2,a,2026-01-01T00:00:00Z
10.0.0.1/32,b,
::ffff:10.0.0.2,b,2026-01-01T00:00:00Z
`, []string{
			`u.csv:4: prefix "10.0.0.1/32" has no from, as in line 2, but the lines differ: delete one or give it another from`,
			`u.csv:5: prefix "10.0.0.2/32" begins at 2026-01-01T00:00:00Z, as in line 3, but the lines differ: delete one or give it another from`,
		}},
		{"YAML keys and values", "u.yaml", `- prefix: 10.0.0.1/24
  user: a
- prefix: 10.0.0.1
  name: a
- prefix: [10.0.0.1]
  user: a
- x
- prefix: &p 10.0.0.2
  user: |
    a
- from: 2026
`, []string{
			`u.yaml:1:11: prefix "10.0.0.1/24" has host bits set: write 10.0.0.0/24 for the prefix or 10.0.0.1 for the address`,
			`u.yaml:4:3: name is unknown: the keys are prefix, user, from, until, realm, class, multiSession, vrf, ports and timeZone`,
			`u.yaml:5:11: prefix must be a plain value on one line`,
			`u.yaml:7:3: must be keys and values, such as {prefix: 192.0.2.1, user: alice}`,
			`u.yaml:8:11: prefix must be a plain value on one line`,
			`u.yaml:9:9: user must be a plain value on one line`,
			`u.yaml:11: prefix is missing: ` + address,
			`u.yaml:11: user is missing: whose is the prefix?`,
			`u.yaml:11:9: from "2026" ` + when,
		}},
		{"YAML that is no list", "u.yaml", "users:\n- prefix: 10.0.0.1\n", []string{`u.yaml:1:6: must be a list: each item begins with "- "`}},
		{"YAML that is none", "u.yml", "- prefix: [\n", []string{`u.yml:1:11: sequence end token ']' not found`}},
		{"a key twice", "u.yml", "- user: a\n  user: b\n", []string{`u.yml:2:3: mapping key "user" already defined at [1:3]`}},
		{"another format", "u.json", "[]", []string{`u.json: is no users file by its name: it must end in .csv, .yaml or .yml`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := write(t, c.file, c.content)
			f, err := ParseFile(name)
			var parse *ParseError
			if !errors.As(err, &parse) {
				t.Fatalf("%v, %v", f, err)
			}
			var got []string
			for _, p := range parse.Problems {
				got = append(got, strings.TrimPrefix(p.Error(), filepath.Dir(name)+"/"))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if len(f.Bindings) != 0 {
				t.Errorf("%d bindings in spite of errors", len(f.Bindings))
			}
		})
	}
}

func TestParseFileTellsTwentyProblems(t *testing.T) {
	_, err := ParseFile(write(t, "u.csv", "prefix,user\n"+strings.Repeat("x,y\n", 33)))
	var parse *ParseError
	if !errors.As(err, &parse) || len(parse.Problems) != 20 || parse.More != 13 {
		t.Fatalf("%v", err)
	}
	if text := err.Error(); strings.Count(text, "\n") != 21 || !strings.HasSuffix(text, "\n\tand 13 more") {
		t.Errorf("%s", text)
	}
	var p Problem
	if !errors.As(err, &p) || p.Line != 2 {
		t.Errorf("the first problem is %+v", p)
	}
}

func TestParseFileUnreadable(t *testing.T) {
	if _, err := ParseFile(filepath.Join(t.TempDir(), "u.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ParseFile(t.TempDir()); err == nil {
		t.Error("a directory is read")
	}
}

func TestParseFileWarnings(t *testing.T) {
	name := write(t, "u.csv", `prefix,user,from,until
10.0.0.1,a,,2026-01-03T00:00:00Z
10.0.0.1,b,2026-01-02T00:00:00Z,2026-01-02T12:00:00Z
10.0.0.1,c,2026-01-02T18:00:00Z,
10.0.0.2,a,,2026-01-02T00:00:00Z
10.0.0.2,b,2026-01-02T00:00:00Z,
10.0.0.3,a,,
10.0.0.3,a,,
10.0.0.0/24,a,,
`)
	f, err := ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range f.Warnings {
		got = append(got, strings.TrimPrefix(w.Error(), name))
	}
	want := []string{
		`:3: from "2026-01-02T00:00:00Z" begins before line 2's binding of 10.0.0.1/32 to "a" ends: from then on "b" counts`,
		`:4: from "2026-01-02T18:00:00Z" begins before line 2's binding of 10.0.0.1/32 to "a" ends: from then on "c" counts`,
		`:8: repeats line 7: one of them can go`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var table Table
	table.Replace("f", f.Bindings, 1)
	for moment, want := range map[string]string{
		"2026-01-01T00:00:00Z": "a", "2026-01-02T06:00:00Z": "b", "2026-01-02T13:00:00Z": "a", "2026-01-02T20:00:00Z": "c",
	} {
		at, _ := time.Parse(time.RFC3339, moment)
		if got := who(table.Lookup(f.Bindings[0].Prefix.Addr(), at.UnixMilli())); got != want {
			t.Errorf("at %s it is %s, want %s", moment, got, want)
		}
	}
}

// TestOverlapsAreAllWarnedOf compares the warnings with a look at every pair.
func TestOverlapsAreAllWarnedOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &fileParser{file: "f"}
		n := rapid.IntRange(0, 8).Draw(t, "n")
		for i := range n {
			from := rapid.Int64Range(0, 20).Draw(t, "from")*10 + int64(i) + 1 // all differ
			until := from + rapid.Int64Range(1, 100).Draw(t, "length")
			if rapid.IntRange(0, 5).Draw(t, "open") == 0 {
				until = 0
			}
			prefix := rapid.SampledFrom([]string{"10.0.0.1/32", "10.0.0.2/32"}).Draw(t, "prefix")
			p.bindings = append(p.bindings, bind(prefix, "u", from, until))
			p.lines = append(p.lines, i+1)
		}
		want := map[int]bool{} // lines whose binding begins within another's
		for i, a := range p.bindings {
			for j, b := range p.bindings {
				if i != j && a.Prefix == b.Prefix && a.From.Before(b.From) && (a.Until.IsZero() || b.From.Before(a.Until)) {
					want[p.lines[j]] = true
				}
			}
		}
		_, warnings, err := p.result()
		if err != nil {
			t.Skip("two begin at once")
		}
		for _, w := range warnings {
			if !want[w.Line] {
				t.Fatalf("needless: %v", w)
			}
			delete(want, w.Line)
		}
		if len(want) != 0 {
			t.Fatalf("no warning of lines %v", want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("u.csv", []byte("prefix,user,from,until\n10.0.0.1,a,,2026-01-01T00:00:00Z\n# c\n::1/128,\"b\",,\n"))
	f.Add("u.csv", []byte("user,prefix,realm,class,multiSession\na,10.0.0.0/8,r,c,m\n"))
	f.Add("u.csv", []byte("prefix,user\n10.0.0.1/24,\"\n"))
	f.Add("u.yaml", []byte("- prefix: 10.0.0.1\n  user: a\n  until: 2026-01-01T00:00:00Z\n- {prefix: '::/0', user: b}\n"))
	f.Add("u.yaml", []byte("- &a {prefix: 10.0.0.1}\n- *a\n- !!str x: y\n- <<: *a\n- ? [a]\n  : b\n"))
	f.Add("u.yaml", []byte("--- |\n a\n---\n- \n-\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		bindings, _, err := parse(name, data)
		if err != nil {
			var parse *ParseError
			if !errors.As(err, &parse) || len(parse.Problems) == 0 || len(parse.Problems) > MaxProblems || bindings != nil {
				t.Fatalf("%v, %v", bindings, err)
			}
			return
		}
		source, again, err := ParseList(AppendList(nil, name, bindings))
		if err != nil || source != name || !slices.Equal(again, bindings) {
			t.Fatalf("%v of %q came back as %v of %q, %v", bindings, name, again, source, err)
		}
		var table Table
		table.Replace(name, bindings, 1)
	})
}

func BenchmarkParseFile(b *testing.B) {
	var content strings.Builder
	content.WriteString("prefix,user,from,until\n")
	const n = 100_000
	for _, v := range someBindings("IPv4 hosts", n) {
		content.WriteString(v.Prefix.String() + "," + v.User + "," + v.From.Format(time.RFC3339) + ",\n")
	}
	name := write(b, "u.csv", content.String())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFile(name); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/binding")
}
