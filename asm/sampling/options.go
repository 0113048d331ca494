package sampling

import "tollbridge/ipfix"

// Options read what the options records of one Template say of sampling, or of
// when an exporter's up time began.
type Options struct {
	rates                   reader
	init                    ipfix.Accessor
	hasRates, hasInit       bool
	selector, iface, scoped ipfix.Accessor // selectorId or samplerId; an interface; templateId
	hasSelector, hasIface   bool
	hasTemplate             bool
}

// NewOptions returns nil for an Options Template that says nothing of it.
func NewOptions(t *ipfix.Template) *Options {
	o := new(Options)
	o.rates, o.hasRates = newReader(t)
	o.init, o.hasInit = t.Accessor(0, ipfix.SystemInitTimeMilliseconds)
	if !o.hasRates && !o.hasInit {
		return nil
	}
	o.selector, o.hasSelector = selectorOf(t)
	for _, id := range []uint16{ipfix.IngressInterface, ipfix.EgressInterface} {
		if !o.hasIface {
			o.iface, o.hasIface = t.Accessor(0, id)
		}
	}
	if i, ok := t.Index(0, ipfix.TemplateId); ok && i < t.Scope {
		o.scoped, o.hasTemplate = t.AccessorAt(i), true
	}
	return o
}

// selectorOf returns the way to the selectorId or samplerId of records of t.
func selectorOf(t *ipfix.Template) (ipfix.Accessor, bool) {
	if a, ok := t.Accessor(0, ipfix.SelectorId); ok {
		return a, true
	}
	return t.Accessor(0, ipfix.SamplerId)
}

// learn takes in options record d, and reports whether it says anything new,
// and whether there is room for it.
func (t *table) learn(o *Options, d ipfix.Record) (news, room bool) {
	room = true
	if o.hasInit {
		if init := o.init.UnixMilli(d); init != t.init {
			t.init, news = init, true
		}
	}
	if !o.hasRates {
		return news, room
	}
	v, ok := o.rates.rate(d)
	if !ok {
		v = OneIn(1)
	}
	put := func(rates *map[uint64]Rate, id uint64) {
		if (*rates)[id] != v {
			news, room = true, t.set(rates, id, v)
		}
	}
	switch {
	case o.hasSelector:
		put(&t.bySelector, o.selector.Uint64(d))
	case o.hasIface && o.iface.Uint64(d) != 0: // no interface has the number 0
		put(&t.byInterface, o.iface.Uint64(d))
	case o.hasTemplate && o.scoped.Uint64(d) != 0:
		put(&t.byTemplate, o.scoped.Uint64(d))
	case t.all != v:
		t.all, news = v, true
	}
	return news, room
}
