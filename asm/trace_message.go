package asm

import (
	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// A MessageTracer is a Tracer that is told of the Messages, too.
type MessageTracer interface {
	Tracer

	// Message is called for a Message, the Data of e, before it is decoded:
	// decoder knows the Templates of its Transport Session that hold until then
	// and is not to be changed. An entry that another collector passed on has
	// Messages within; they follow it. What has no header is not told of.
	Message(e acct.Entry, session SessionInfo, decoder *ipfix.Session)
}

// traceMessage tells the tracer of e, a Message of t.
func (m *Module) traceMessage(t *transport, e acct.Entry) {
	if tracer, ok := m.tracer.(MessageTracer); ok {
		tracer.Message(e, t.info, t.decoder)
	}
}
