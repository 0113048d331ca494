//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	point, nth = parse(os.Getenv("TOLLBRIDGE_CRASH"))
	passes     atomic.Int64
)

// parse reads "point:n". No value is no crash; one that can't be read is a
// mistake in a test, which must not pass by not crashing.
func parse(s string) (string, int64) {
	if s == "" {
		return "", 0
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		panic("crashpoint: TOLLBRIDGE_CRASH wants point:n, has " + s)
	}
	n, err := strconv.ParseInt(s[i+1:], 10, 64)
	if err != nil || n < 1 {
		panic("crashpoint: TOLLBRIDGE_CRASH wants point:n, has " + s)
	}
	return s[:i], n
}

// At kills the process, as kill -9 does, on the pass of name that the
// environment asks for, after naming the point on standard error. Safe for
// use by any goroutines.
func At(name string) {
	if name != point || passes.Add(1) != nth {
		return
	}
	fmt.Fprintf(os.Stderr, "crash point %q pass %d\n", name, nth)
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing after the point happens
}
