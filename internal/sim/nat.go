package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"tollbridge/asm"
)

// Addresses that several users share by ports: one behind a NAT that tells what
// it does, the other in blocks that the operator's files list.
var (
	translated = netip.MustParseAddr("198.18.0.1")
	divided    = netip.MustParseAddr("198.18.0.2")
)

// portBlocks are what is shared out of an address: blocks, and parts of two.
var portBlocks = [][2]uint16{
	{1024, 1279}, {1280, 1535}, {1536, 1791}, {1792, 2047}, {2048, 2559}, {1024, 1087}, {2048, 2303},
}

// A nat is a carrier-grade NAT, which the first exporter tells of (RFC 8158):
// it lets private addresses have blocks of ports of the translated one.
type nat struct {
	had [7]*translation // by block, the latest
}

// A translation is an event of a NAT: that a private address gets a block of
// ports, or gives it back.
type translation struct {
	at      int64 // Unix milliseconds
	block   int
	private netip.Addr
	vrf     uint32 // number of the private address's space
	space   string // name of that
	gets    bool
}

// share puts world w into a state in which addresses are shared, and mean
// something else in other address spaces.
func (w *world) share() {
	w.mood.shared, w.nat = true, &nat{}
	if s := &w.mood.settings; w.rng.IntN(2) == 0 || w.draws(SharedAddresses) { // what a NAT told is soon forgotten, and what waits is not
		s.Late, s.Fallback = w.between(time.Minute, 2*time.Minute), ""
		s.Correct = min(s.Correct, s.Late)
	}
	w.mood.settings.Exporters = w.mood.spaces(w.mood.settings.Exporters)
}

// spaces returns settings of exporters with address spaces.
func (m *mood) spaces(list []asm.ExporterSettings) []asm.ExporterSettings {
	for _, name := range []string{"east", "north"} {
		i := slices.IndexFunc(list, func(e asm.ExporterSettings) bool { return e.Name == name })
		if i < 0 {
			i = len(list)
			list = append(list, asm.ExporterSettings{Name: name})
		}
		list[i].VRF = &asm.VRFSettings{Element: "ingressVRFID", Names: map[string]string{"5": "red"}}
	}
	return list
}

// translate lets the NAT of e do something, and e tell of it.
func (e *exporter) translate(domain uint32) {
	w := e.w
	data := set{form: natForm, what: translations}
	for range 1 + w.rng.IntN(3) {
		n := w.rng.IntN(len(portBlocks))
		x := &translation{
			at: (w.now + e.offset) / 1e6, block: n, private: one(&w.scheduler, insiders), gets: true,
			vrf: one(&w.scheduler, []uint32{0, 0, 0, 5}),
		}
		if before := w.nat.had[n]; before != nil {
			x.at = max(x.at, before.at+1)
			if before.gets && w.chance(0.7) { // else its end is lost
				x.private, x.vrf, x.gets = before.private, before.vrf, false
			}
		}
		w.nat.had[n] = x
		data.translations = append(data.translations, x)
	}
	e.send(e.tell(domain, data))
}

func (x *translation) String() string {
	what := "gives back"
	if x.gets {
		what = "gets"
	}
	return fmt.Sprintf("at %v %v of vrf %d %s %v", milli(x.at).Format("15:04:05.000"), x.private, x.vrf, what, portBlocks[x.block])
}

// values returns the record of x.
func (x *translation) values() []any {
	event := 17
	if x.gets {
		event = 16
	}
	return []any{milli(x.at), event, x.private, translated, portBlocks[x.block][0], portBlocks[x.block][1], x.vrf}
}

// space returns how the address space of a VRF is called, for records of an
// exporter.
func (t *truth) space(exporter string, vrf uint32) string {
	for _, e := range t.settings.Exporters {
		if e.Name == exporter && e.VRF != nil {
			number := strconv.FormatUint(uint64(vrf), 10)
			if name, ok := e.VRF.Names[number]; ok {
				return name
			}
			return number
		}
	}
	return ""
}

// translate takes in what a NAT did, as an exporter tells it.
func (t *truth) translate(exporter string, list []*translation) {
	t.sweepAtTimes()
	changed := false
	for _, told := range list {
		x := *told
		x.space = t.space(exporter, x.vrf)
		news := !slices.ContainsFunc(t.translations, func(y *translation) bool {
			return y.gets && y.same(&x) && (y.at == x.at || y.at < x.at && t.has(y, x.at))
		})
		if !x.gets {
			news = slices.ContainsFunc(t.translations, func(y *translation) bool {
				return y.gets && y.same(&x) && y.at <= x.at && t.has(y, x.at)
			})
		}
		changed = changed || news
		if !slices.ContainsFunc(t.translations, func(y *translation) bool { return *y == x }) {
			t.translations = append(t.translations, &x)
		}
	}
	t.mapSoon(changed)
}

// same reports whether x and y are of the same block and private address.
func (x *translation) same(y *translation) bool {
	return x.block == y.block && x.private == y.private && x.space == y.space
}

// ends returns when who got a block with x had it no more: until he gave it back,
// or another got it; 0 for not yet.
func (t *truth) ends(x *translation) (until int64) {
	for _, y := range t.translations {
		later := y.at > x.at && y.gets && y.block == x.block && !y.same(x) || y.at >= x.at && !y.gets && y.same(x)
		if later && (until == 0 || y.at < until) {
			until = y.at
		}
	}
	return until
}

// has reports whether who got a block with x had it at a later moment.
func (t *truth) has(x *translation, at int64) bool {
	until := t.ends(x)
	return until == 0 || at < until
}

// forgetTranslations forgets what ended at a moment or before. Of a flow that
// waits it is kept on whose behalf the NAT spoke: the flow may find a wider block
// afterwards, or whom a file lists, and neither has it.
func (t *truth) forgetTranslations(before int64) {
	over := func(x *translation) bool {
		until := t.told(x)
		return until != 0 && until <= before
	}
	keep := func(f *flow) {
		for i, e := range []end{f.source(), f.destination()} {
			if f.end >= before || f.behind[i].address.IsValid() {
				continue
			}
			if s := t.share(e, f.end); s != nil && s.by != nil && over(s.by) {
				f.behind[i] = end{space: s.by.space, address: s.by.private}
			}
		}
	}
	for _, x := range t.waiting {
		keep(x.flow)
	}
	for _, x := range t.suspects {
		keep(x.flow)
	}
	var left []*translation
	for _, x := range t.translations {
		if !over(x) {
			left = append(left, x)
		}
	}
	t.translations = left
}

// told returns until when x says something, 0 for ever. Who gets a block that
// he has already has it by the later event from then on.
func (t *truth) told(x *translation) (until int64) {
	if !x.gets {
		return x.at
	}
	until = t.ends(x)
	for _, y := range t.translations {
		if y.gets && y.same(x) && y.at > x.at && (until == 0 || y.at < until) {
			until = y.at
		}
	}
	return until
}

// A share is a block of ports that somebody has: whom a file lists with it, or
// who has the private address that a NAT let it stand for.
type share struct {
	first, last uint16
	since       int64
	listed      *holder      // nil where a NAT tells
	by          *translation // likewise where a file does
}

// share returns what the port of an end was of at a moment, if its address is
// shared, nil for nothing: of several blocks the narrowest counts, then the one
// had since the latest moment, then the lowest, then what a file lists.
func (t *truth) share(e end, at int64) (best *share) {
	consider := func(s share) {
		if e.port < s.first || e.port > s.last {
			return
		}
		if best == nil || cmp.Or(cmp.Compare(s.last-s.first, best.last-best.first), cmp.Compare(best.since, s.since), cmp.Compare(s.first, best.first)) < 0 {
			best = &s
		}
	}
	var listed []*holder
	for _, h := range t.holders {
		if h.Ports != "" && h.VRF == e.space && h.Prefix.Addr() == e.address && h.has(at) {
			listed = append(listed, h)
		}
	}
	slices.SortFunc(listed, func(a, b *holder) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, h := range listed {
		for _, r := range h.Ports.Ranges() {
			consider(share{r.First, r.Last, unix(h.From), h, nil})
		}
	}
	if e.space != "" || e.address != translated {
		return best
	}
	// An event that came again after the settings changed is of another space.
	byName := func(x, y *translation) int {
		return cmp.Or(x.private.Compare(y.private), cmp.Compare(x.space, y.space))
	}
	var of []*translation
	for _, x := range t.translations {
		if x.gets && x.at <= at && portBlocks[x.block][0] <= e.port && e.port <= portBlocks[x.block][1] && t.has(x, at) {
			of = append(of, x)
		}
	}
	slices.SortFunc(of, byName)
	for _, x := range of {
		consider(share{portBlocks[x.block][0], portBlocks[x.block][1], x.at, nil, x})
	}
	return best
}

// shares reports whether any address is shared.
func (t *truth) shares() bool {
	return len(t.translations) > 0 || slices.ContainsFunc(t.holders, func(h *holder) bool { return h.Ports != "" })
}
