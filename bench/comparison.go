package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// A sample is one measurement.
type sample struct {
	cpu  time.Duration // user and system
	n    uint64        // what was worked off: records, packets, ACRs
	lost uint64        // what of the load never came to be worked off

	latency [2]time.Duration // median and 99th percentile; 0 where it is not measured
}

// perMillion returns CPU seconds per million.
func (s sample) perMillion() float64 { return s.cpu.Seconds() / float64(s.n) * 1e6 }

// errAbsent says that a peer is not installed here.
var errAbsent = errors.New("not installed")

// A contender does the work of a comparison once.
type contender struct {
	name string
	run  func(context.Context) (sample, error)
}

// A comparison is a line of the table: ours, and peers that do the same.
type comparison struct {
	name  string  // for -only
	what  string  // for people
	unit  string  // of a sample's n
	aim   float64 // 0 for none
	ours  contender
	peers []contender
}

// A result holds what a comparison's contenders needed, run by run.
type result struct {
	comparison
	samples []samples // ours first, then the peers
}

type samples struct {
	name string
	runs []sample
	err  error // why a peer has no figure, or nil
}

// measure lets all contenders run in turn, runs times over (A B A B), so that
// a drift of the machine touches all of them alike.
func (c comparison) measure(ctx context.Context, runs int) (result, error) {
	r := result{comparison: c}
	contenders := append([]contender{c.ours}, c.peers...)
	for _, who := range contenders {
		r.samples = append(r.samples, samples{name: who.name})
	}
	for run := range runs {
		for i, who := range contenders {
			if r.samples[i].err != nil {
				continue
			}
			s, err := who.run(ctx)
			if err != nil && i > 0 && ctx.Err() == nil {
				// A peer that is absent or can't do the work here ends its own cell only.
				fmt.Fprintf(os.Stderr, "%-14s %d/%d  %-28s %v\n", c.name, run+1, runs, who.name, err)
				r.samples[i].err = err
				continue
			}
			if err != nil {
				return r, fmt.Errorf("%s: %w", who.name, err)
			}
			fmt.Fprintf(os.Stderr, "%-14s %d/%d  %-28s %8.3f CPU s per million %s, lost %d\n", c.name, run+1, runs, who.name, s.perMillion(), c.unit, s.lost)
			r.samples[i].runs = append(r.samples[i].runs, s)
		}
	}
	return r, nil
}

// A spread is what several runs came to.
type spread struct{ median, min, max float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

func (s samples) spread() spread {
	var v []float64
	for _, run := range s.runs {
		v = append(v, run.perMillion())
	}
	return spreadOf(v)
}

// ratio compares s and peer pair by pair: the nth run of one with the nth of
// the other, which ran right after it.
func (s samples) ratio(peer samples) spread {
	var v []float64
	for i, run := range s.runs {
		v = append(v, run.perMillion()/peer.runs[i].perMillion())
	}
	return spreadOf(v)
}

// latency returns the medians, over the runs, of the median and of the 99th
// percentile, in milliseconds; false where it was not measured.
func (s samples) latency() (median, p99 spread, ok bool) {
	var v [2][]float64
	for _, run := range s.runs {
		for i, d := range run.latency {
			v[i] = append(v[i], float64(d)/float64(time.Millisecond))
			ok = ok || d > 0
		}
	}
	if !ok {
		return spread{}, spread{}, false
	}
	return spreadOf(v[0]), spreadOf(v[1]), true
}

// lost returns what part of its load s lost in its worst run.
func (s samples) lost() float64 {
	worst := 0.0
	for _, run := range s.runs {
		worst = max(worst, float64(run.lost)/float64(run.lost+run.n))
	}
	return worst
}
