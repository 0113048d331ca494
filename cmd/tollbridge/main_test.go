package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"tollbridge": main})
}

// tests removes the programs that the tests have built.
type tests struct{ *testing.M }

func (m tests) Run() int {
	status := m.M.Run()
	if builds != "" {
		os.RemoveAll(builds)
	}
	return status
}

var (
	building sync.Mutex // one at a time
	builds   string     // the folder of what was built; "" before the first
)

// The command as the tests run it: as make build makes it, but with the race
// detector where the tests have it, and with crash points.
var (
	plainProgram = sync.OnceValues(func() (string, error) {
		if os.Getenv("SCTP_VM") != "" {
			return itself()
		}
		return build("tollbridge", raceFlags...)
	})
	crashProgram = sync.OnceValues(func() (string, error) { return build("tollbridge-crashpoints", "-tags", "crashpoints") })
)

// itself is the test as the command, where nothing can be built: it is that by
// its name.
func itself() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if builds, err = os.MkdirTemp("", "tollbridge-test-"); err != nil {
		return "", err
	}
	name := filepath.Join(builds, "tollbridge")
	return name, os.Symlink(self, name)
}

func build(name string, flags ...string) (string, error) {
	building.Lock()
	defer building.Unlock()
	if builds == "" {
		dir, err := os.MkdirTemp("", "tollbridge-test-")
		if err != nil {
			return "", err
		}
		builds = dir
	}
	file := filepath.Join(builds, name)
	args := append(append([]string{"build", "-o", file}, flags...), ".")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return file, nil
}

// TestScripts has the command do what testdata/script says. Beside what
// testscript knows, "keys FILE .PATH NAME..." wants the object at .PATH of a
// JSON file to have these keys.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"keys": keys},
	})
}

func keys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: keys FILE .PATH NAME...")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &value))
	for _, name := range strings.FieldsFunc(args[1], func(r rune) bool { return r == '.' }) {
		object, ok := value.(map[string]any)
		if !ok {
			ts.Fatalf("%s: above %q there is no object", args[0], name)
		}
		value = object[name]
	}
	object, ok := value.(map[string]any)
	if !ok {
		ts.Fatalf("%s%s: is no object", args[0], args[1])
	}
	for _, name := range args[2:] {
		if _, there := object[name]; !there {
			ts.Fatalf("%s%s: has no key %s, but %v", args[0], args[1], name, slices.Sorted(maps.Keys(object)))
		}
	}
}
