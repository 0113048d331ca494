package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// thisMachine describes what was measured on: cores, processor, kernel, Go.
func thisMachine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	var u syscall.Utsname
	kernel := "unknown"
	if syscall.Uname(&u) == nil {
		var b []byte
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			b = append(b, byte(c))
		}
		kernel, _, _ = strings.Cut(string(b), "-")
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// peerVersions lists the programs and libraries measured beside.
func peerVersions() []string {
	installed := func(name, arg string) string {
		// softflowd tells its version beside its usage, with a status other than 0.
		out, err := exec.Command(name, arg).CombinedOutput()
		if len(out) == 0 {
			return fmt.Sprintf("%s is not installed (%v)", name, err)
		}
		return name + " " + cmp.Or(regexp.MustCompile(`\d+(\.\d+)+`).FindString(string(out)), "of unknown version")
	}
	versions := []string{installed("nfcapd", "-V"), installed("softflowd", "-h")}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			switch dep.Path {
			case "github.com/netsampler/goflow2/v2":
				versions = append(versions, "goflow2 "+dep.Version)
			case "github.com/fiorix/go-diameter/v4":
				versions = append(versions, "go-diameter "+dep.Version)
			}
		}
	}
	return versions
}
