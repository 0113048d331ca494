package credit

import (
	"fmt"
	"strings"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// Application is the Diameter Credit-Control application (RFC 8506, Section 1.3).
const Application = 4

// command is that of CCR and CCA (RFC 8506, Section 3).
const command = 272

// AVP codes of RFC 8506, Section 8.
const (
	ccCorrelationID      = 411
	ccInputOctets        = 412
	ccOutputOctets       = 414
	ccRequestNumber      = 415
	ccRequestType        = 416
	ccTotalOctets        = 421
	finalUnitIndication  = 430
	grantedServiceUnit   = 431
	ratingGroup          = 432
	requestedAction      = 436
	requestedServiceUnit = 437
	subscriptionID       = 443
	subscriptionIDData   = 444
	usedServiceUnit      = 446
	validityTime         = 448
	subscriptionIDType   = 450
	multipleIndicator    = 455
	multipleServices     = 456
	serviceContextID     = 461
	reAuthRequestType    = 285 // RFC 6733, Section 8.12
)

// Values of CC-Request-Type (RFC 8506, Section 8.3).
const (
	initial     = 1
	update      = 2
	termination = 3
	event       = 4
)

// Values of Requested-Action (8.41), Subscription-Id-Type (8.47),
// Multiple-Services-Indicator (8.40) and Termination-Cause (RFC 6733, 8.15).
const (
	directDebiting    = 0
	refundAccount     = 1
	subscriptionNAI   = 3
	multipleSupported = 1
	logout            = 1
	administrative    = 4
)

// Result-Codes (RFC 8506, Section 9; RFC 6733, Section 7.1).
const (
	tooBusy              = 3004
	outOfSpace           = 4002
	endUserServiceDenied = 4010
	creditNotApplicable  = 4011
	creditLimitReached   = 4012
	unknownSession       = 5002
	unableToComply       = 5012
	userUnknown          = 5030
)

// appendRequest appends the Credit-Control-Request of s.Pending, a copy with
// the T flag. Its Hop-by-Hop Identifier is to be set.
func (c *Config) appendRequest(b []byte, s *Session, retransmitted bool) []byte {
	p := s.Pending
	h := avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: command, Application: Application, EndToEnd: p.EndToEnd}
	if retransmitted {
		h.Flags |= avp.FlagRetransmitted
	}
	start := len(b)
	b = avp.AppendHeader(b, h)
	const m = avp.FlagMandatory
	b = avp.AppendString(b, avp.SessionID, 0, m, s.id())
	b = avp.AppendString(b, avp.OriginHost, 0, m, c.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, c.OriginRealm)
	realm := s.Realm
	if realm == "" {
		realm = c.DestinationRealm
	}
	b = avp.AppendString(b, avp.DestinationRealm, 0, m, realm)
	b = avp.AppendUint32(b, avp.AuthApplicationID, 0, m, Application)
	b = avp.AppendString(b, serviceContextID, 0, m, c.ServiceContext)
	b = avp.AppendUint32(b, ccRequestType, 0, m, p.Type)
	b = avp.AppendUint32(b, ccRequestNumber, 0, m, p.Number)
	b = avp.AppendString(b, avp.UserName, 0, m, s.User)
	b = avp.AppendString(b, ccCorrelationID, 0, 0, s.SessionID)
	b = avp.AppendTime(b, avp.EventTimestamp, 0, m, p.At)
	b, group := avp.Begin(b, subscriptionID, 0, m)
	b = avp.AppendUint32(b, subscriptionIDType, 0, m, subscriptionNAI)
	b = avp.AppendString(b, subscriptionIDData, 0, m, s.User)
	avp.End(b, group)
	switch p.Type {
	case event:
		action := uint32(directDebiting)
		if s.Refund {
			action = refundAccount
		}
		b = avp.AppendUint32(b, requestedAction, 0, m, action)
	case termination:
		cause := uint32(logout)
		if s.Aborted {
			cause = administrative
		}
		b = avp.AppendUint32(b, avp.TerminationCause, 0, m, cause)
	}
	b = avp.AppendUint32(b, multipleIndicator, 0, m, multipleSupported)
	for i := range s.Services {
		v := &s.Services[i]
		used := minus(p.Used[i], v.Reported)
		if used == (acct.Usage{}) && !p.Want[i] {
			continue
		}
		b, group = avp.Begin(b, multipleServices, 0, m)
		if p.Want[i] {
			b = c.appendUnits(b, requestedServiceUnit, acct.Usage{}, c.Request)
		}
		if used != (acct.Usage{}) {
			// An event's units are what is to be debited: requested, not used.
			code := uint32(usedServiceUnit)
			if p.Type == event {
				code = requestedServiceUnit
			}
			b = c.appendUnits(b, code, used, octets(used))
		}
		b = avp.AppendUint32(b, ratingGroup, 0, m, v.RatingGroup)
		avp.End(b, group)
	}
	avp.SetLength(b[start:])
	return b
}

func (c *Config) appendUnits(b []byte, code uint32, u acct.Usage, total uint64) []byte {
	const m = avp.FlagMandatory
	b, group := avp.Begin(b, code, 0, m)
	if code == requestedServiceUnit && u == (acct.Usage{}) && total == 0 {
		avp.End(b, group) // the server says how much
		return b
	}
	b = avp.AppendUint64(b, ccTotalOctets, 0, m, total)
	if u != (acct.Usage{}) {
		b = avp.AppendUint64(b, ccInputOctets, 0, m, u.InputOctets)
		b = avp.AppendUint64(b, ccOutputOctets, 0, m, u.OutputOctets)
	}
	avp.End(b, group)
	return b
}

// An answer is what matters of a Credit-Control-Answer.
type answer struct {
	session  string
	number   uint32
	result   uint32 // 0 for none
	text     string // Error-Message
	host     string // Origin-Host
	services []grant
}

func (a answer) String() string {
	s := resultText(a.result)
	if a.text != "" {
		s += ": " + a.text
	}
	return s
}

// resultText names the Result-Codes of RFC 8506, Section 9.
func resultText(code uint32) string {
	name := map[uint32]string{
		endUserServiceDenied: "END_USER_SERVICE_DENIED", creditNotApplicable: "CREDIT_CONTROL_NOT_APPLICABLE",
		creditLimitReached: "CREDIT_LIMIT_REACHED", userUnknown: "USER_UNKNOWN", 5031: "RATING_FAILED",
	}[code]
	return strings.TrimSpace(fmt.Sprintf("%s (%d)", name, code))
}

// A grant is a Multiple-Services-Credit-Control AVP of an answer.
type grant struct {
	ratingGroup uint32
	hasGroup    bool
	result      uint32 // 0 for none, which is success
	octets      uint64
	hasOctets   bool
	validity    uint32 // seconds; 0 for ever
	final       bool   // Final-Unit-Indication
}

// parseAnswer reads a Credit-Control-Answer. Units that are not octets grant
// nothing that we could count. AVPs that are not known are passed over.
func parseAnswer(m peer.Message) (a answer, err error) {
	var whole grant // units outside of any Multiple-Services-Credit-Control
	for v, err := range avp.Scan(m.AVPs()) {
		if err != nil {
			return answer{}, fmt.Errorf("credit: answer: %w", err)
		}
		if v.Vendor != 0 {
			continue
		}
		switch v.Code {
		case avp.SessionID:
			a.session = string(v.Data)
		case avp.ResultCodeAVP:
			a.result, err = v.Uint32()
		case avp.ExperimentalResult:
			if code, ok := avp.Find(v.Data, avp.ExperimentalResultCode, 0); ok && a.result == 0 {
				a.result, err = code.Uint32()
			}
		case ccRequestNumber:
			a.number, err = v.Uint32()
		case avp.ErrorMessage:
			a.text = strings.ToValidUTF8(string(v.Data[:min(len(v.Data), 256)]), "?")
		case avp.OriginHost:
			a.host = string(v.Data)
		case multipleServices:
			var g grant
			if err = g.read(v.Data); err == nil {
				a.services = append(a.services, g)
			}
		case grantedServiceUnit, validityTime, finalUnitIndication:
			err = whole.take(v)
		}
		if err != nil {
			return answer{}, fmt.Errorf("credit: answer: AVP %d: %w", v.Code, err)
		}
	}
	if whole != (grant{}) {
		a.services = append(a.services, whole)
	}
	return a, nil
}

func (g *grant) read(b []byte) error {
	for v, err := range avp.Scan(b) {
		if err != nil {
			return err
		}
		if v.Vendor != 0 {
			continue
		}
		if err := g.take(v); err != nil {
			return fmt.Errorf("AVP %d: %w", v.Code, err)
		}
	}
	return nil
}

func (g *grant) take(v avp.AVP) (err error) {
	switch v.Code {
	case ratingGroup:
		g.hasGroup = true
		g.ratingGroup, err = v.Uint32()
	case avp.ResultCodeAVP:
		g.result, err = v.Uint32()
	case validityTime:
		g.validity, err = v.Uint32()
	case finalUnitIndication:
		g.final = true
	case grantedServiceUnit:
		for u, err := range avp.Scan(v.Data) {
			if err != nil {
				return err
			}
			if u.Code == ccTotalOctets && u.Vendor == 0 {
				g.hasOctets = true
				if g.octets, err = u.Uint64(); err != nil {
					return err
				}
			}
		}
	}
	return err
}
