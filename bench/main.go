// Command bench measures Tollbridge beside nfcapd, softflowd, goflow2 and
// go-diameter, in CPU seconds (user and system, of the whole process) per
// million, and writes docs/performance.md. It is a module of its own so that
// the programs it measures beside stay out of Tollbridge's go.mod.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := measure
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		run = func(ctx context.Context) error { return children[os.Args[1]](ctx, os.Args[2:]) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure is what the command does unless it is one of its own children.
func measure(ctx context.Context) error {
	out := flag.String("out", "", "file to write; none prints to standard output")
	only := flag.String("only", "", "measure only what matches this `regexp`")
	runs := flag.Int("runs", 3, "how often each is measured")
	scale := flag.Float64("scale", 1, "how much of the load to take, to try things quickly")
	another := flag.String("beside", "", "another `build` of tollbridge, such as that of an earlier commit, to run the pipeline in turn with")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}

	lab, err := newLab(ctx, *scale, *another)
	if err != nil {
		return err
	}
	defer lab.close()
	began := time.Now()
	var results []result
	for _, c := range comparisons(lab) {
		if !wanted.MatchString(c.name) {
			continue
		}
		r, err := c.measure(ctx, *runs)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		results = append(results, r)
	}
	report := report{machine: thisMachine(), peers: peerVersions(), results: results, runs: *runs, took: time.Since(began)}
	if *out == "" {
		return report.write(os.Stdout)
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	if err := report.write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// comparisons are the lines of the table, in the order of a flow's way.
func comparisons(l *lab) []comparison {
	return []comparison{
		decoding(l),
		journaling(l),
		exporting(l),
		pipelineUDP(l),
		pipelineTCP(l),
		delivering(l),
		metering(l),
	}
}
