package users

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatch changes a file step by step, and looks at what is told of each.
func TestWatch(t *testing.T) {
	name := write(t, "u.csv", "prefix,user\n10.0.0.1,a\n")
	loaded, err := ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	moment := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	put := func(content string) {
		// Written beside and renamed, with a time of its own.
		next := filepath.Join(filepath.Dir(name), "next")
		if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		moment = moment.Add(time.Second)
		if err := os.Chtimes(next, moment, moment); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, name); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 100)
		done := make(chan error)
		go func() {
			done <- Watch(ctx, loaded, time.Second, func(f File, err error) {
				switch {
				case f.Name != name:
					t.Errorf("told of %q", f.Name)
				case err != nil:
					told <- "error: " + err.Error()
				default:
					users := ""
					for _, b := range f.Bindings {
						users += b.User
					}
					told <- users
				}
			})
		}()
		// after lets so many looks pass and says what they told.
		after := func(looks int) string {
			timer := time.NewTimer(time.Duration(looks)*time.Second + time.Millisecond)
			<-timer.C
			synctest.Wait()
			var all []string
			for len(told) > 0 {
				all = append(all, strings.ReplaceAll(<-told, name, "u.csv"))
			}
			return strings.Join(all, " | ")
		}
		check := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		check("nothing changed", after(5), "")
		put("prefix,user\n10.0.0.1,b\n")
		check("while it may still be written", after(1), "")
		check("changed", after(1), "b")
		check("once", after(5), "")
		put("prefix,user\n10.0.0.1,b\n")
		check("the same content with another time", after(5), "")
		put("prefix,user\n10.0.0,c\n")
		check("errors, once", after(5), "error: users: read u.csv:\n\tu.csv:2:1: prefix \"10.0.0\" is no address: an address such as 192.0.2.1 or a prefix such as 2001:db8::/56 is expected")
		put("prefix,user\n10.0.0.1,d\n")
		check("mended", after(5), "d")
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		check("gone, once", after(5), "error: users: watch u.csv: stat u.csv: no such file or directory")
		put("prefix,user\n10.0.0.1,d\n")
		check("back as it was", after(5), "")
		put("prefix,user\n10.0.0.1,e\n")
		after(1)
		put("prefix,user\n10.0.0.1,f\n")
		check("changed again while it may still be written", after(1), "")
		check("settled", after(1), "f")

		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
}
