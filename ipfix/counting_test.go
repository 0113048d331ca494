package ipfix

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// An exporterModel numbers Messages in one of the ways that exporters do.
type exporterModel struct {
	version uint16
	unit    Unit
	shared  bool
	next    map[uint32]uint32 // by domain, 0 if shared
}

// A sentMessage is a Message as a model sends it.
type sentMessage struct {
	header                    Header
	flows, options, templates uint32
}

func (e *exporterModel) send(domain, at, flows, options, templates uint32) sentMessage {
	key := domain
	if e.shared {
		key = 0
	}
	m := sentMessage{Header{Domain: domain, ExportTime: at, Sequence: e.next[key], Version: e.version}, flows, options, templates}
	e.next[key] += m.tally().of(e.unit)
	if e.unit == UnitFlowsSent {
		m.header.Sequence = e.next[key]
	}
	return m
}

func (m sentMessage) tally() *tally {
	n := m.flows + m.options
	return &tally{n, m.flows, n + m.templates, 1, 0}
}

// A countingModel is the accounting of a Session without the Messages.
type countingModel struct {
	session            *Session
	lost, found        uint64
	lostM, foundM      uint64
	restarts, suspects int
	last               Counting
}

func newCountingModel() *countingModel { return &countingModel{session: NewSession(UDP)} }

func (c *countingModel) arrive(m sentMessage) Result {
	d := c.session.domains[m.header.domainKey()]
	if d == nil {
		d = newDomain(m.header.domainKey())
		c.session.domains[d.key] = d
	}
	r := Result{Records: uint64(m.flows + m.options)}
	c.session.sharedOf(m.header.Version).account(d, &d.sequence, &m.header, m.tally(), &r, c.session.domains)
	c.lost += r.Lost
	c.found += r.Found
	c.lostM += r.LostMessages
	c.foundM += r.FoundMessages
	if r.Restarted {
		c.restarts++
	}
	if r.Counting.Confidence == Suspect {
		c.suspects++
	}
	c.last = r.Counting
	return r
}

// Exporters number Messages in many ways. Each is recognized, and what was
// called lost before that is taken back.
func TestCountingRecognized(t *testing.T) {
	for _, test := range []struct {
		name    string
		version uint16
		unit    Unit
		shared  bool
		want    Confidence
	}{
		{"Data Records (RFC 7011, 3.1)", Version, UnitRecords, false, Exact},
		{"Data Records without options", Version, UnitFlows, false, Estimated},
		{"Data Records and Template Records", Version, UnitAll, false, Estimated},
		{"Messages", Version, UnitMessages, false, Estimated},
		{"nothing", Version, UnitNone, false, Unknown},
		{"Data Records with the Message's own, without options (softflowd)", Version, UnitFlowsSent, false, Estimated},
		{"Data Records of all domains", Version, UnitRecords, true, Estimated},
		{"Messages of all domains", Version, UnitMessages, true, Estimated},
		{"NetFlow 9: packets (RFC 3954, 5.1)", NetFlow9, UnitMessages, false, Estimated},
		{"NetFlow 9: records", NetFlow9, UnitRecords, false, Exact},
		{"NetFlow 9: records and templates", NetFlow9, UnitAll, false, Estimated},
		{"NetFlow 9: packets of all sources", NetFlow9, UnitMessages, true, Estimated},
		{"NetFlow 5: records", NetFlow5, UnitRecords, false, Exact},
		{"NetFlow 5: records of all engines", NetFlow5, UnitRecords, true, Estimated},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := exporterModel{test.version, test.unit, test.shared, map[uint32]uint32{}}
			c := newCountingModel()
			var lost uint64 // truly, of Messages once all is known
			for i := range uint32(600) {
				flows, options, templates := 20+i%7, uint32(0), uint32(0)
				if i%10 == 3 {
					options, templates = 2, 3
				}
				if test.version == NetFlow5 {
					options, templates = 0, 0
				}
				m := e.send(1+i/2%3, i, flows, options, templates)
				if i == 599 {
					lost = uint64(flows + options)
					continue
				}
				c.arrive(m)
				if c.found > c.lost {
					t.Fatalf("message %d: found %d of %d", i, c.found, c.lost)
				}
			}
			if c.lost != c.found {
				t.Errorf("%d lost that were not", c.lost-c.found)
			}
			if want := (Counting{test.unit, test.shared, test.want}); c.last != want {
				t.Errorf("recognized as %v %t %v", c.last.Unit, c.last.Shared, c.last.Confidence)
			}
			// And a loss is seen still.
			m := e.send(1+600/2%3, 600, 20, 0, 0)
			if test.shared {
				m = e.send(1, 600, 20, 0, 0)
			}
			if r := c.arrive(m); test.unit != UnitNone && test.shared && r.Lost < lost {
				t.Errorf("lost %d, want %d", r.Lost, lost)
			}
		})
	}
}

// An exporter that changes its ways, as after an update, is recognized again.
func TestCountingChanges(t *testing.T) {
	c := newCountingModel()
	e := exporterModel{version: Version, next: map[uint32]uint32{}}
	for i, unit := range []Unit{UnitRecords, UnitMessages, UnitRecords, UnitNone, UnitRecords} {
		e.unit = unit
		for j := range uint32(100) {
			c.arrive(e.send(1, uint32(i)*100+j, 20+j%3, 0, 0))
		}
		if c.last.Unit != unit {
			t.Errorf("step %d: %v, want %v", i, c.last.Unit, unit)
		}
	}
	if c.lost != c.found {
		t.Errorf("%d lost that were not", c.lost-c.found)
	}
}

// Domains that share numbers and then no longer do.
func TestSharedEnds(t *testing.T) {
	c := newCountingModel()
	for i, shared := range []bool{false, true, false} {
		e := exporterModel{Version, UnitRecords, shared, map[uint32]uint32{0: 5, 1: 1 << 30 * uint32(i), 2: 1 << 28}}
		for j := range uint32(100) {
			c.arrive(e.send(1+j%2, uint32(i)*1000+j, 20+j%3, 0, 0))
		}
		if c.last.Shared != shared {
			t.Errorf("step %d: shared %t", i, c.last.Shared)
		}
	}
	if c.lost-c.found > 0 {
		t.Errorf("%d lost that were not", c.lost-c.found)
	}
}

// An exporter that counts as it should is never taken for another, and every
// record lost is counted, whatever is lost and reordered on the way: over one
// or several Observation Domains, with Templates and options in between.
func TestCountingHonest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]uint16{Version, NetFlow9, NetFlow5}).Draw(t, "version")
		e := exporterModel{version: version, next: map[uint32]uint32{1: rapid.Uint32().Draw(t, "first"), 2: rapid.Uint32().Draw(t, "first"), 3: 7}}
		if version == NetFlow9 {
			e.unit = UnitMessages
		}
		domains := rapid.Uint32Range(1, 3).Draw(t, "domains")
		loss := rapid.IntRange(0, 50).Draw(t, "loss in percent")
		reorder := rapid.IntRange(0, 30).Draw(t, "reordered in percent")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c := newCountingModel()
		var sent []sentMessage
		for i := range uint32(rapid.IntRange(10, 300).Draw(t, "messages")) {
			domain := 1 + random.Uint32N(domains)
			flows, options, templates := 5+random.Uint32N(36), uint32(0), uint32(0)
			if version != NetFlow5 && i%10 < domains {
				options, templates = 2, 4
			}
			sent = append(sent, e.send(domain, i/100, flows, options, templates))
		}
		type tail struct{ first, end uint32 }
		arrived := map[uint32]map[uint32]uint32{} // by domain: number -> advance
		series := map[uint32]*tail{}
		deliver := func(m sentMessage) {
			c.arrive(m)
			d := m.header.Domain
			n := m.tally()[e.unit]
			end := m.header.Sequence + n
			if series[d] == nil {
				series[d] = &tail{m.header.Sequence, end}
				arrived[d] = map[uint32]uint32{}
			}
			if int32(m.header.Sequence-series[d].first) < 0 {
				return // before the first that was seen: nobody can know of it
			}
			if int32(end-series[d].end) > 0 {
				series[d].end = end
			}
			arrived[d][m.header.Sequence] = n
		}
		var late []sentMessage
		for i, m := range sent {
			switch {
			case i < 3: // all domains begin well enough
				deliver(m)
			case random.IntN(100) < loss:
			case random.IntN(100) < reorder:
				late = append(late, m)
			default:
				deliver(m)
			}
			if len(late) > 0 && random.IntN(2) == 0 {
				deliver(late[0])
				late = late[1:]
			}
		}
		if c.last.Unit != e.unit || c.last.Shared {
			t.Fatalf("taken for one that counts %v, shared %t", c.last.Unit, c.last.Shared)
		}
		if c.restarts > 0 {
			t.Fatalf("%d restarts", c.restarts)
		}
		var missing uint64
		for d, r := range series {
			missing += uint64(r.end - r.first)
			for _, n := range arrived[d] {
				missing -= uint64(n)
			}
		}
		got := c.lost - c.found
		if version == NetFlow9 {
			got = c.lostM - c.foundM
		}
		// Of very many gaps the oldest are forgotten, so what comes late for
		// them stays lost.
		if got < missing || got > missing && loss+reorder < 20 {
			t.Fatalf("%d lost, but %d are missing", got, missing)
		}
		if c.found > c.lost {
			t.Fatalf("found %d of %d", c.found, c.lost)
		}
	})
}

// Whatever way an exporter counts, under loss, what is lost is never absurd:
// not more than was sent, and never negative.
func TestCountingNeverAbsurd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := exporterModel{
			version: rapid.SampledFrom([]uint16{Version, NetFlow9, NetFlow5}).Draw(t, "version"),
			unit:    Unit(rapid.IntRange(0, int(units)-1).Draw(t, "unit")),
			shared:  rapid.Bool().Draw(t, "shared"),
			next:    map[uint32]uint32{},
		}
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c := newCountingModel()
		var sent, largest uint64
		loss := rapid.IntRange(0, 20).Draw(t, "loss in percent")
		byDomain := map[uint32]int64{}
		for i := range uint32(300) {
			flows, templates := 1+random.Uint32N(40), uint32(0)
			if i%20 == 0 {
				templates = 3
			}
			m := e.send(1+random.Uint32N(3), i/10, flows, 0, templates)
			sent += uint64(flows + templates)
			largest = max(largest, uint64(flows))
			if random.IntN(100) < loss {
				continue
			}
			r := c.arrive(m)
			d := m.header.Domain
			if byDomain[d] += int64(r.Lost) - int64(r.Found); byDomain[d] < 0 {
				t.Fatalf("message %d: domain %d lost %d", i, d, byDomain[d])
			}
		}
		if got := c.lost - c.found; got > sent+20*largest*largest {
			t.Fatalf("%d lost of %d that were sent", got, sent)
		}
	})
}

// softflowd says how many flows it has sent with those of the Message itself.
// Its captures are too short to be sure of that, but nothing is lost for sure.
func TestCountingOfSoftflowd(t *testing.T) {
	skipWithoutCorpus(t)
	for _, name := range []string{"softflowd-v10-tcp.pcap", "softflowd-v10-udp-uniflow.pcap", "softflowd-v10-udp-biflow.pcap"} {
		s := NewSession(UDP)
		suspect := 0
		for _, msg := range corpusMessages(t, filepath.Join(corpusDir, "generated", name)) {
			r, err := s.Decode(msg, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Lost > 0 && r.Counting.Confidence != Suspect {
				t.Errorf("%s: %d lost, %v", name, r.Lost, r.Counting.Confidence)
			}
			if r.Counting.Confidence == Suspect {
				suspect++
			}
		}
		if suspect == 0 {
			t.Errorf("%s: nothing is suspect", name)
		}
	}
}
