package aaaserver

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A request is an Accounting-Request and, in the end, its answer.
type request struct {
	message peer.Message
	result  uint32           // Result-Code; 0 until it is decided
	text    string           // Error-Message
	failed  []byte           // a whole Failed-AVP
	proxied bool             // it carries Proxy-Info
	speaker *Peer            // who sent it; nil for one who may speak for anybody
	task    acct.RequestTask // what the Pipeline does with it; 0 leaves it to the Store
	cdr     acct.CDR
}

// read fills the CDR from the message, or refuses it: result is then set.
func (s *Server) read(r *request) {
	m := r.message
	if !slices.Contains(s.cfg.Applications, m.Application) {
		r.result = avp.ResultApplicationUnsupported
		r.text = fmt.Sprintf("application %d is not served", m.Application)
		return
	}
	record, err := s.cfg.Dictionary.ParseRecord(m.AVPs())
	if err != nil {
		r.result, r.text = avp.ResultUnableToComply, err.Error()
		var e *dict.RecordError
		if errors.As(err, &e) {
			r.result, r.failed = e.Result, e.AppendFailedAVP(nil)
		}
		return
	}
	r.cdr = acct.CDR{
		SessionID: record.SessionID, Number: record.Number, Type: record.Type, MultiSessionID: record.MultiSessionID,
		User: record.User, Event: record.Event, SessionTime: record.SessionTime, Usage: record.Usage, Corrects: record.Corrects,
		Retransmitted: m.Flags&avp.FlagRetransmitted != 0, AVPs: m.AVPs(),
	}
	var unknown avp.AVP
	for a := range avp.Scan(m.AVPs()) { // ParseRecord has read them all
		switch {
		case a.Is(avp.RouteRecord, 0):
			if s.looped(a.Data) {
				r.result, r.text = avp.ResultLoopDetected, "the request was here before"
				return
			}
		case a.Is(avp.OriginHost, 0):
			r.cdr.OriginHost = string(a.Data)
		case a.Is(avp.OriginRealm, 0):
			r.cdr.OriginRealm = string(a.Data)
		case a.Is(avp.ProxyInfo, 0):
			r.proxied = true
		case unknown.Code == 0 && a.Mandatory() && !s.known.has(a):
			unknown = a
		}
	}
	for _, required := range [...]struct {
		code  uint32
		value string
	}{{avp.OriginHost, r.cdr.OriginHost}, {avp.OriginRealm, r.cdr.OriginRealm}, {avp.DestinationRealm, record.Realm}} {
		if required.value == "" {
			r.refuse(avp.ResultMissingAVP, "a required AVP is missing", avp.AVP{Code: required.code, Flags: avp.FlagMandatory})
			return
		}
	}
	if !r.authorize() {
		return
	}
	switch {
	case r.speaker != nil && r.speaker.Access:
		r.task = acct.RequestBinding // what else it carries is of no use here
		return
	case containsIdentity(s.cfg.Forward, record.Realm):
		r.task = acct.RequestForward // whatever it carries is its server's to know
		return
	case len(s.cfg.Realms) > 0 && !containsIdentity(s.cfg.Realms, record.Realm):
		r.result, r.text = avp.ResultRealmNotServed, fmt.Sprintf("realm %s is not served", record.Realm)
		return
	case unknown.Code != 0:
		r.refuse(avp.ResultAVPUnsupported, "an AVP with the M bit is not known here", unknown)
		return
	case s.cfg.Flows && record.User == "" && len(record.Flow) > 0:
		if s.readFlow(r, &record) {
			r.task = acct.RequestFlows
		}
		return
	}
	r.cdr.Content = dict.ContentDigest(m.AVPs())
}

// readFlow reports whether the Pipeline could read the flow that a request
// carries, and refuses the request if not. A part is judged by its number.
func (s *Server) readFlow(r *request, record *acct.Record) bool {
	var err error
	switch {
	case record.Parts > 1:
		if record.Part < 1 || record.Part > record.Parts || record.MultiSessionID == "" {
			err = fmt.Errorf("part %d of %d of a flow, with Acct-Multi-Session-Id %q", record.Part, record.Parts, record.MultiSessionID)
		}
	default:
		err = s.cfg.Dictionary.CheckFlow(record.Flow)
	}
	if err != nil {
		offending, _, _ := avp.Next(record.Flow)
		offending.Data = offending.Data[:min(len(offending.Data), maxFailed)]
		r.refuse(avp.ResultInvalidAVPValue, err.Error(), offending)
	}
	return err == nil
}

// maxFailed bounds what of a flow is sent back in a Failed-AVP, in octets.
const maxFailed = 1024

func (r *request) refuse(result uint32, text string, offending avp.AVP) {
	r.result, r.text = result, text
	r.failed = avp.Append(nil, avp.FailedAVP, 0, avp.FlagMandatory, offending.Append(nil))
}

// appendAnswer appends the answer to r, whose result is decided: an
// Accounting-Answer (RFC 6733, Section 9.7.2) or, for a protocol error, an
// answer-message (Section 7.2). A refused request may lack what its answer
// would repeat.
func (s *Server) appendAnswer(b []byte, r *request, node peer.Node) []byte {
	const m = avp.FlagMandatory
	if r.result/1000 == 3 {
		return node.AppendError(b, r.message, r.result, r.text, nil)
	}
	if r.result == avp.ResultSuccess {
		return s.appendSuccess(b, r, node)
	}
	start := len(b)
	b = peer.AppendAnswerHeader(b, r.message, r.result)
	avps := r.message.AVPs()
	if id, ok := avp.Find(avps, avp.SessionID, 0); ok {
		b = avp.Append(b, avp.SessionID, 0, m, id.Data)
	}
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, m, r.result)
	b = avp.AppendString(b, avp.OriginHost, 0, m, node.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, node.OriginRealm)
	for _, code := range [...]uint32{avp.AccountingRecordType, avp.AccountingRecordNumber} {
		if a, ok := avp.Find(avps, code, 0); ok && len(a.Data) == 4 {
			b = avp.Append(b, code, 0, m, a.Data)
		}
	}
	b = avp.AppendUint32(b, avp.AcctApplicationID, 0, m, r.message.Application)
	if r.text != "" {
		b = avp.AppendString(b, avp.ErrorMessage, 0, 0, r.text)
	}
	b = append(b, r.failed...)
	if node.StateID != 0 {
		b = avp.AppendUint32(b, avp.OriginStateID, 0, m, node.StateID)
	}
	b = peer.AppendProxyInfo(b, avps)
	avp.SetLength(b[start:])
	return b
}

// appendSuccess appends the answer to a request that has been read whole.
func (s *Server) appendSuccess(b []byte, r *request, node peer.Node) []byte {
	const m = avp.FlagMandatory
	start := len(b)
	b = peer.AppendAnswerHeader(b, r.message, r.result)
	b = avp.AppendString(b, avp.SessionID, 0, m, r.cdr.SessionID)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, m, r.result)
	b = avp.AppendString(b, avp.OriginHost, 0, m, node.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, node.OriginRealm)
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, m, uint32(r.cdr.Type))
	b = avp.AppendUint32(b, avp.AccountingRecordNumber, 0, m, r.cdr.Number)
	b = avp.AppendUint32(b, avp.AcctApplicationID, 0, m, r.message.Application)
	if s.cfg.InterimInterval != 0 && (r.cdr.Type == acct.Start || r.cdr.Type == acct.Interim) {
		b = avp.AppendUint32(b, avp.AcctInterimInterval, 0, m, uint32(s.cfg.InterimInterval/time.Second))
	}
	if node.StateID != 0 {
		b = avp.AppendUint32(b, avp.OriginStateID, 0, m, node.StateID)
	}
	if r.proxied {
		b = peer.AppendProxyInfo(b, r.message.AVPs())
	}
	avp.SetLength(b[start:])
	return b
}
