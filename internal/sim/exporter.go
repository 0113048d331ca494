package sim

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tollbridge/ipfix"
)

// An exporter measures flows and sends them over TCP or UDP. Over TCP it may
// want acknowledgements: it then keeps what is not acknowledged, and sends it
// again on the next connection.
type exporter struct {
	w         *world
	name      string
	domains   []uint32
	udp       bool
	wantsAcks bool
	spools    bool      // it sends again the same Messages, by their position in its spool; else the flows
	shadow    *exporter // sends all of it once more over UDP; nil for none
	relay     *relay    // passes on all of it; nil for none
	passive   bool      // it measures nothing
	offset    int64     // of its clock, nanoseconds

	remote   netip.AddrPort // of the present Transport Session
	port     uint16
	dialects map[uint32]*dialect // of the present Transport Session, by domain
	stream   *stream             // nil while there is none
	unacked  []*message
	recent   []*flow // sent lately
	long     []*connection
	position uint64 // of the latest Message in the spool
}

// A dialect is what an exporter uses in an Observation Domain of a Transport
// Session.
type dialect struct {
	encoder *ipfix.Encoder
	current set // the Template
	told    bool
	nextID  uint16
	ids     map[int]uint16 // over UDP, the ID of each form: it stays
	other   map[int]uint16 // the ID of each form that is no flow's, once it was told
}

// A stream is a TCP connection to the collector.
type stream struct {
	exporter *exporter
	remote   netip.AddrPort
	alive    bool
	queue    []*message
	pumping  bool
	session  uint64 // in the journal; 0 before the first Message
	proc     *process
}

func newExporter(w *world, i int) *exporter {
	e := &exporter{
		w: w, name: []string{"east", "north", "west"}[i], domains: []uint32{1}, udp: w.rng.IntN(2) == 0,
		offset: int64(w.between(-2*time.Second, 2*time.Second)), port: uint16(2000 + 1000*i),
	}
	if w.rng.IntN(2) == 0 {
		e.domains = append(e.domains, 7)
	}
	e.wantsAcks = !e.udp && w.rng.IntN(3) > 0
	e.spools = e.wantsAcks && w.rng.IntN(2) == 0
	if w.rng.IntN(5) == 0 {
		e.shadow = &exporter{w: w, name: e.name, domains: e.domains, udp: true, offset: e.offset, port: e.port + 500}
		e.shadow.renew()
	}
	e.renew()
	return e
}

// renew begins a Transport Session: another port, and Templates to be told
// anew.
func (e *exporter) renew() {
	e.port++
	e.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, e.name[0]}), e.port)
	e.dialects = map[uint32]*dialect{}
	for _, d := range e.domains {
		e.dialects[d] = &dialect{encoder: ipfix.NewEncoder(d, 0), nextID: 256, ids: map[int]uint16{}, other: map[int]uint16{}}
	}
}

func (e *exporter) begin() {
	if e.passive {
		return
	}
	e.w.after(e.w.between(0, 2*e.w.mood.gap), e.export)
}

// export sends new flows, and goes on for as long as there is traffic.
func (e *exporter) export() {
	w := e.w
	if w.quiet {
		return
	}
	w.after(w.between(0, 2*w.mood.gap), e.export)
	domain := one(&w.scheduler, e.domains)
	d := e.dialects[domain]
	formAt := d.current.form
	if !d.told || w.chance(0.1) {
		formAt = w.flowForm()
	}
	var flows []*flow
	for range 1 + w.rng.IntN(5) {
		flows = append(flows, e.measure(domain, formAt))
	}
	switch {
	case e.udp && w.chance(0.03):
		w.log("exporter %s reboots", e.name)
		e.renew()
	case w.chance(0.05):
		e.sample(domain)
	case w.nat != nil && e == w.exporters[0] && w.chance(0.3):
		e.translate(domain)
	case w.chance(0.1) && len(e.recent) > 0:
		w.log("exporter %s repeats itself", e.name)
		e.repeat(1 + w.rng.IntN(len(e.recent)))
	}
	e.recent = append(e.recent, flows...)
	e.recent = e.recent[max(0, len(e.recent)-20):]
	if e.relay != nil {
		e.relay.collect(domain, flows)
	}
	if e.relay == nil || w.chance(0.7) {
		e.send(e.encode(domain, flows))
	}
	if e.shadow != nil {
		e.shadow.send(e.shadow.encode(domain, flows))
	}
}

// repeat sends the latest n flows again, in other Messages.
func (e *exporter) repeat(n int) { e.resend(e.recent[len(e.recent)-n:]) }

// resend sends flows of any domains and forms again.
func (e *exporter) resend(flows []*flow) {
	for len(flows) > 0 {
		n := 1
		for n < len(flows) && flows[n].domain == flows[0].domain && flows[n].form == flows[0].form {
			n++
		}
		e.send(e.encode(flows[0].domain, flows[:n]))
		flows = flows[n:]
	}
}

// encode puts flows of one domain and form into a Message, with what is to be
// told of Templates.
func (e *exporter) encode(domain uint32, flows []*flow) *message {
	if e.spools {
		form := flows[0].form
		return e.spool(domain, set{id: fixedID(form), form: form, what: records, flows: slices.Clone(flows)})
	}
	w, d := e.w, e.dialects[domain]
	m := &message{domain: domain}
	check := func(err error) {
		if err != nil {
			w.fail("encode: %v", err)
		}
	}
	formAt := flows[0].form
	tell := !d.told || e.udp && w.chance(0.3)
	if d.current.form != formAt || !d.told {
		next := set{form: formAt, id: d.nextID}
		switch id, known := d.ids[formAt]; {
		case e.udp && known:
			next.id = id
		case e.udp: // an ID is used for one thing only: old datagrams may be under way
			d.ids[formAt] = d.nextID
			d.nextID++
			tell = true
		default: // the same ID for another Template, or another one
			tell = true
			if d.told && w.chance(0.7) {
				check(d.encoder.Withdraw(w.template(d.current.form, d.current.id)))
				m.sets = append(m.sets, set{id: d.current.id, what: withdrawal})
				next.id = d.current.id
			} else {
				d.nextID++
			}
		}
		d.current, d.told = next, true
	}
	// Some exporters put a Template behind its Data Set: that one is early.
	t, late := w.template(formAt, d.current.id), e.udp && w.chance(0.3)
	describe := func() {
		check(d.encoder.AddTemplate(t))
		m.sets = append(m.sets, d.current)
	}
	if tell && !late {
		describe()
	}
	data := d.current
	data.what, data.flows = records, slices.Clone(flows)
	for _, f := range flows {
		check(d.encoder.AppendRecord(t, f.octets))
	}
	m.sets = append(m.sets, data)
	if tell && late {
		describe()
	}
	e.finish(d, m)
	return m
}

// finish ends a Message.
func (e *exporter) finish(d *dialect, m *message) {
	m.octets = bytes.Clone(d.encoder.Flush(uint32((e.w.now + e.offset) / int64(time.Second))))
	e.w.known[string(m.octets)] = m
}

// sample changes the sampling rate of a domain and tells it.
func (e *exporter) sample(domain uint32) {
	e.send(e.tell(domain, set{form: optionsForm, what: sampling, rate: uint64(1 + e.w.rng.IntN(20))}))
}

// tell puts what is no flow into a Message, with its Template where need be.
func (e *exporter) tell(domain uint32, data set) *message {
	if data.id = fixedID(data.form); e.spools {
		return e.spool(domain, data)
	}
	w, d := e.w, e.dialects[domain]
	m := &message{domain: domain}
	describe := e.udp && w.chance(0.5)
	if d.other[data.form] == 0 {
		d.other[data.form] = d.nextID
		d.nextID++
		describe = true
	}
	data.id = d.other[data.form]
	t := w.template(data.form, data.id)
	var err error
	if describe {
		err = d.encoder.AddTemplate(t)
		m.sets = append(m.sets, set{id: data.id, form: data.form})
	}
	if err == nil {
		err = data.encode(d.encoder, t, domain)
	}
	if err != nil {
		w.fail("encode: %v", err)
	}
	m.sets = append(m.sets, data)
	e.finish(d, m)
	return m
}

// encode adds what s has to a Message, as records of t.
func (s *set) encode(e *ipfix.Encoder, t *ipfix.Template, domain uint32) (err error) {
	for _, f := range s.flows {
		err = cmp.Or(err, e.AppendRecord(t, f.octets))
	}
	if s.what == sampling {
		err = e.AddRecord(t, domain, s.rate)
	}
	if s.what == passing {
		var octets []byte
		if octets, err = s.passed.octets(); err == nil {
			err = e.AppendRecord(passedOnTemplate, octets)
		}
	}
	for _, x := range s.translations {
		err = cmp.Or(err, e.AddRecord(t, x.values()...))
	}
	return err
}

// send gives m to the network.
func (e *exporter) send(m *message) {
	if e.udp {
		e.datagram(m)
		return
	}
	switch {
	case e.passive && e.w.bug == AckBeforeOwner:
		e.w.truth.promise(m.flows()...)
	case e.wantsAcks:
		e.unacked = append(e.unacked, m)
	}
	if e.stream == nil {
		return // kept, or lost
	}
	e.stream.queue = append(e.stream.queue, m)
	e.stream.pump()
}

// datagram sends m over UDP: it may be lost, come late, or come twice.
func (e *exporter) datagram(m *message) {
	w, remote := e.w, e.remote
	arrive := func() {
		if w.proc == nil {
			w.log("datagram of %s finds nobody", e.name)
			return
		}
		w.proc.udp(e, remote, m)
	}
	if w.chance(w.mood.loss) {
		w.log("datagram of %s is lost: %v", e.name, m)
	} else {
		w.after(w.between(0, 500*time.Millisecond), arrive)
	}
	for w.chance(w.mood.double) {
		most := 2 * time.Second
		if w.chance(0.2) {
			most = 4 * time.Minute
		}
		w.after(w.between(0, most), arrive)
	}
}

// reachable says that the collector is up.
func (e *exporter) reachable() {
	if !e.udp && e.stream == nil {
		e.w.after(e.w.between(0, 3*time.Second), e.connect)
	}
}

// connect opens a stream and sends again what must be, or may be.
func (e *exporter) connect() {
	w := e.w
	if e.stream != nil || w.proc == nil {
		return
	}
	e.renew()
	e.stream = &stream{exporter: e, remote: e.remote, alive: true, proc: w.proc}
	w.log("exporter %s connects from %v", e.name, e.remote)
	if e.spools {
		e.connectSpool()
		return
	}
	var again []*flow
	if e.wantsAcks {
		for _, m := range e.unacked {
			again = append(again, m.flows()...)
		}
		e.unacked = nil
	} else if len(e.recent) > 0 && w.chance(0.7) {
		again = e.recent[w.rng.IntN(len(e.recent)):]
	}
	if len(again) > 0 {
		w.log("exporter %s sends %d flows again", e.name, len(again))
		e.resend(again)
	}
}

// pump brings what is queued to the collector, one Message after the other.
func (s *stream) pump() {
	if !s.pumping && len(s.queue) > 0 {
		s.pumping = true
		w := s.exporter.w
		w.after(w.between(0, 100*time.Millisecond), func() {
			s.pumping = false
			s.deliver()
		})
	}
}

func (s *stream) deliver() {
	w := s.exporter.w
	if !s.alive {
		return
	}
	if s.proc.blocked() {
		w.after(time.Second, s.pump) // it is not read
		return
	}
	m := s.queue[0]
	s.queue = s.queue[1:]
	s.proc.tcp(s, m)
	if !w.quiet && w.chance(w.mood.cut) {
		w.log("stream of %s breaks", s.exporter.name)
		p := s.proc
		s.alive = false
		p.later(w.between(0, 2*time.Second), func() { p.closed(s) })
		w.after(w.between(0, 2*time.Second), func() { s.exporter.disconnected(s) })
		return
	}
	s.pump()
}

// disconnected tells the exporter that s is gone.
func (e *exporter) disconnected(s *stream) {
	if e.stream == s {
		e.stream = nil
		e.w.after(e.w.between(0, 10*time.Second), e.connect)
	}
}

// lose says that the collector has crashed.
func (e *exporter) lose() {
	if s := e.stream; s != nil {
		s.alive = false
		e.w.after(e.w.between(0, 5*time.Second), func() { e.disconnected(s) })
	}
}

// told brings the exporter the word that m is durable, unless the stream
// breaks before.
func (e *exporter) told(s *stream, m *message, after time.Duration) {
	e.w.after(after, func() {
		if !s.alive {
			return
		}
		e.unacked = slices.DeleteFunc(e.unacked, func(o *message) bool { return o == m })
		e.w.truth.promise(m.flows()...)
	})
}
