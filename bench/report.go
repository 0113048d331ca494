package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A report is docs/performance.md.
type report struct {
	machine string
	peers   []string
	results []result
	runs    int
	took    time.Duration
}

func (r report) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# Performance

<!-- Written by make bench. Change bench/report.go, not this file. -->

CPU seconds (user and system, of the whole process) per million, which are
microseconds each: median of %d runs, least and most in parentheses. The
programs of a line ran in turn (A B A B), and a ratio is that of neighbours, so
that a drift of the machine touches both. Below 1 we need less.

Measured on %s:
a virtual machine that other work shared, so figures swing by a third from run
to run, and those that wait for memory or disk swing most. Beside
%s.

| what | ours | aim | peer | theirs | ours / theirs |
| --- | --- | --- | --- | --- | --- |
`, r.runs, r.machine, strings.Join(r.peers, ", "))
	for _, line := range r.results {
		ours := line.samples[0]
		aim := ""
		if line.aim > 0 {
			aim = fmt.Sprintf("%.2f", line.aim)
			if o := ours.spread(); o.median > line.aim {
				aim += " (missed)"
			}
		}
		cells := []string{line.what, ours.spread().String(), aim}
		if len(line.samples) == 1 {
			fmt.Fprintf(&b, "| %s | none does this | | |\n", strings.Join(cells, " | "))
			continue
		}
		for _, peer := range line.samples[1:] {
			if peer.err != nil {
				fmt.Fprintf(&b, "| %s | %s | %v | |\n", strings.Join(cells, " | "), peer.name, peer.err)
			} else {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.Join(cells, " | "), peer.name, peer.spread(), ours.ratio(peer))
			}
			cells = []string{"", "", ""}
		}
	}
	b.WriteString("\n" + lossLine(r.results) + "\n" + latencies(r.results))
	fmt.Fprintf(&b, notes, users, pipelineRate, journalRate, goflow2Rate, interimInterval, deliveries, deliverySessions, deliveryWindow, captureFlows, snapLength, exportRate, pipelineRecords)
	fmt.Fprintf(&b, "\n## How to repeat it\n\n    make bench\n\nIt took %s here. nfcapd and softflowd are Debian's packages `nfdump` and\n"+
		"`softflowd`; without them their cells say so. goflow2 and go-diameter are built\nfrom bench/go.mod. `cd bench && go run . -only journal -runs 5` measures one line\n"+
		"and prints it.\n", r.took.Round(time.Second))
	_, err := io.WriteString(w, b.String())
	return err
}

// latencies is a table of the lines that latency was measured of.
func latencies(results []result) string {
	var b strings.Builder
	for _, r := range results {
		for _, s := range r.samples {
			if median, p99, ok := s.latency(); ok {
				fmt.Fprintf(&b, "| %s | %.1f (%.1f-%.1f) | %.1f (%.1f-%.1f) |\n", s.name, median.median, median.min, median.max, p99.median, p99.min, p99.max)
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n| from the end of a flow until its record is received, milliseconds | median | 99th percentile |\n| --- | --- | --- |\n" + b.String()
}

// lossLine says what UDP lost while it was measured.
func lossLine(results []result) string {
	var worst float64
	for _, r := range results {
		for _, s := range r.samples {
			worst = max(worst, s.lost())
		}
	}
	if worst == 0 {
		return "No record was lost."
	}
	return fmt.Sprintf("At most %.3f %% of a run's records were lost; a run that loses more than %.1f %% is\nrepeated slower.", 100*worst, 100*maxLoss)
}

func (s spread) String() string {
	format := "%.3f (%.3f-%.3f)"
	if s.median >= 1 {
		format = "%.2f (%.2f-%.2f)"
	}
	return fmt.Sprintf(format, s.median, s.min, s.max)
}

const notes = `
## What is measured

- **Load.** Flow records of 13 fields and 55 octets, 24 per Message, all
  different, with flow ends that rise with the clock. Half come from one of
  %d users, half go to one.
- **Decode.** Every field of every record becomes a number, of up to 32 records
  at once, as the pipeline reads them. goflow2's decoder splits records into
  fields; the numbers would come after that. Both decode the same Messages,
  5.6 MB that are made before the time is taken and lie in no near cache.
- **Journal.** Up to what is *received*: after it the record survives a power
  cut. nfcapd and goflow2 decode and write to a file, without fsync.
- **Export.** An Exporting Process and a Collecting Process, over TCP at %[11]d
  records a second, in a process each, whose CPU times are added.
  With acknowledged export the exporter has each Message on its disk, synced,
  and frees it once the collector's journal has it; over plain TCP it keeps
  nothing. With the journal off the collector keeps nothing either. The time is
  that of the oldest record of a Message, which waits for the Message to be
  full; it ends when the record is *received*: in the fsynced journal, or, with
  the journal off, read.
- **Pipeline.** ` + "`tollbridge serve`" + ` from its start to its end: users file read,
  journal, decoding, duplicate elimination over an hour, user mapping,
  aggregation, checkpoints as they come due, %[5]s intervals; one START per user and all
  open usage is in the outbox and the sessions at the end, and the books
  balance. Each run is %[12]d records, so that most of it is what goes on all day
  and not the start: reading the users and beginning a session for each take
  about 2 s in all. UDP comes at %[2]d records a second, TCP as fast as it is taken.
- **Where the pipeline's time goes**, in a profile of it over TCP: 18 %% to
  recognizing duplicates (4 %% of it while the first table of identities grows),
  14 %% to accounting, 11 %% to whose the addresses are, 11 %% to decoding, 9 %% to
  checkpoints, 5 %% each to the journal and to receiving, 3 %% each to reading back
  what the pipeline had no time for and to garbage collection, and the rest to
  the start and to the runtime. No one place stands out. Much of it is waiting
  for memory: each record asks four places of tables that no cache holds, in
  batches so that the waits overlap. One lookup in a batch among a million hosts
  takes a third of what one read of a random place takes here
  (` + "`BenchmarkLookup`" + ` in asm/users). Checkpoints write, of each record, 18 octets that
  identify it, twice, once in SQLite's log (0.08 alone, ` + "`BenchmarkIdentities`" + ` in spool).
  Holders of whole cache lines, and touching the sessions of a batch before
  they are used, gained nothing that could be measured.
- **Rates.** UDP to the journal and to nfcapd %[3]d records a second,
  to goflow2 %[4]d, near the most that it takes here.
- **Delivery.** %[6]d records of %[7]d sessions, window %[8]d, to a server
  in another process that answers and keeps nothing. Ours marks each record as
  perhaps sent before its first octet leaves and settles it after its answer,
  both on disk. go-diameter's API builds requests of the same standard AVPs and
  matches answers, and nothing is kept.
- **Meter.** A capture of packets of %[9]d flows in random order, cut to
  %[10]d octets, to IPFIX over UDP.
`
