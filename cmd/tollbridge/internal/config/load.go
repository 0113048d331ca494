package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A Problem is one thing wrong with a configuration file.
type Problem struct {
	File string
	Line int    // 0 where no line of the file is to blame
	Key  string // such as delivery.peers[0].address
	Text string // what is wrong, and what would be right
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		fmt.Fprintf(&b, ": %s", p.Key)
	}
	return b.String() + ": " + p.Text
}

// Load reads and checks the file, on top of Default. Its error joins every
// Problem that it found.
func Load(file string) (Config, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("config: %w: name the file with -c; tollbridge.example.yaml has every key", err)
	} else if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	return Parse(file, content)
}

// Parse is Load for content that has been read; file is its name in errors.
func Parse(file string, content []byte) (Config, error) {
	c := Default()
	tree, err := parser.ParseBytes(content, 0)
	if err != nil {
		p := Problem{File: file, Text: err.Error()}
		var y yaml.Error
		if errors.As(err, &y) {
			p.Text = "can't be read as YAML: " + y.GetMessage()
			if t := y.GetToken(); t != nil {
				p.Line = t.Position.Line
			}
		}
		return c, p
	}
	w := walker{file: file, lines: map[string]int{}}
	if len(tree.Docs) > 1 {
		return c, Problem{File: file, Text: "holds several YAML documents: one is expected"}
	}
	if body := body(tree); body != nil {
		w.value(body, reflect.TypeFor[Config](), "")
		if len(w.problems) == 0 {
			if err := yaml.UnmarshalWithOptions(content, &c, yaml.Strict()); err != nil {
				return c, Problem{File: file, Text: err.Error()}
			}
		}
	}
	if len(w.problems) == 0 {
		c.check(w.report)
	}
	sort.SliceStable(w.problems, func(i, j int) bool { return w.problems[i].Line < w.problems[j].Line })
	var all []error
	for _, p := range w.problems {
		all = append(all, p)
	}
	return c, errors.Join(all...)
}

// body returns the content of a file, nil for one that has nothing but
// comments: the decoder would take that for a zero Config.
func body(tree *ast.File) ast.Node {
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil
	}
	switch b := tree.Docs[0].Body; b.Type() {
	case ast.CommentType, ast.NullType:
		return nil
	default:
		return b
	}
}

// A walker compares a YAML tree with the Go type that it is meant for, and
// remembers the line of every key.
type walker struct {
	file     string
	lines    map[string]int
	problems []Problem
}

// report blames key, or the nearest key above it that the file has.
func (w *walker) report(key, format string, args ...any) {
	line := 0
	for at := key; at != "" && line == 0; {
		line = w.lines[at]
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	w.problems = append(w.problems, Problem{w.file, line, key, fmt.Sprintf(format, args...)})
}

func (w *walker) value(n ast.Node, t reflect.Type, key string) {
	if n == nil || n.Type() == ast.NullType {
		return // an empty value means the default
	}
	if a, ok := n.(*ast.AnchorNode); ok {
		n = a.Value
	}
	if key != "" && w.lines[key] == 0 {
		w.lines[key] = n.GetToken().Position.Line
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		w.text(n, key, func(s string) error {
			if d, err := time.ParseDuration(s); err != nil || d < 0 {
				return fmt.Errorf("%q is not a duration: write it like 30s, 5m or 24h", s)
			}
			return nil
		})
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		w.text(n, key, func(s string) error {
			err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
			if err != nil && t == reflect.TypeFor[netip.AddrPort]() {
				return fmt.Errorf("%q is not an address and port: write it like 127.0.0.1:4739 or [::1]:4739", s)
			}
			return err
		})
	case t.Kind() == reflect.String:
		w.text(n, key, func(string) error { return nil })
	case t.Kind() == reflect.Bool:
		w.text(n, key, func(s string) error {
			if s != "true" && s != "false" {
				return fmt.Errorf("%q is neither true nor false", s)
			}
			return nil
		})
	case t.Kind() == reflect.Int:
		w.text(n, key, func(s string) error {
			if _, err := strconv.Atoi(s); err != nil {
				return fmt.Errorf("%q is not a whole number", s)
			}
			return nil
		})
	case t.Kind() == reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			example := ""
			if _, single := n.(ast.ScalarNode); single {
				example = fmt.Sprintf(", such as [%q]", n.GetToken().Value)
			}
			w.report(key, "is %s: a list is expected%s", strings.ToLower(n.Type().YAMLName()), example)
			return
		}
		for i, v := range seq.Values {
			w.value(v, t.Elem(), fmt.Sprintf("%s[%d]", key, i))
		}
	case t.Kind() == reflect.Struct:
		w.mapping(n, t, key)
	default:
		panic("config: internal error: no rule for " + t.String())
	}
}

func (w *walker) mapping(n ast.Node, t reflect.Type, key string) {
	fields := map[string]reflect.Type{}
	var names []string
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("yaml")
		fields[name] = t.Field(i).Type
		names = append(names, name)
	}
	slices.Sort(names)
	m, ok := n.(ast.MapNode)
	if !ok {
		w.report(key, "is %s: the keys %s are expected", strings.ToLower(n.Type().YAMLName()), strings.Join(names, ", "))
		return
	}
	for it := m.MapRange(); it.Next(); {
		name := it.Key().GetToken().Value
		sub := strings.TrimPrefix(key+"."+name, ".")
		w.lines[sub] = it.Key().GetToken().Position.Line
		ft, known := fields[name]
		if !known {
			w.report(sub, "is not a key: here are %s", strings.Join(names, ", "))
			continue
		}
		w.value(it.Value(), ft, sub)
	}
}

func (w *walker) text(n ast.Node, key string, check func(string) error) {
	s, ok := n.(ast.ScalarNode)
	if !ok {
		hint := ""
		if n.Type() == ast.MappingType || n.Type() == ast.MappingValueType {
			hint = "; quote it if it holds a colon" // {a: [127.0.0.1:1]} comes as a mapping
		}
		w.report(key, "is %s: a single value is expected%s", strings.ToLower(n.Type().YAMLName()), hint)
		return
	}
	if err := check(s.GetToken().Value); err != nil {
		w.report(key, "%v", err)
	}
}
