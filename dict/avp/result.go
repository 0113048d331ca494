package avp

// Result codes (RFC 6733, Section 7.1).
const (
	ResultMultiRoundAuth = 1001

	ResultSuccess        = 2001
	ResultLimitedSuccess = 2002

	// Protocol errors, hop by hop; the answer has the E bit.
	ResultCommandUnsupported     = 3001
	ResultUnableToDeliver        = 3002
	ResultRealmNotServed         = 3003
	ResultTooBusy                = 3004
	ResultLoopDetected           = 3005
	ResultRedirectIndication     = 3006
	ResultApplicationUnsupported = 3007
	ResultInvalidHeaderBits      = 3008
	ResultInvalidAVPBits         = 3009
	ResultUnknownPeer            = 3010

	// Transient failures.
	ResultAuthenticationRejected = 4001
	ResultOutOfSpace             = 4002
	ResultElectionLost           = 4003

	// Permanent failures.
	ResultAVPUnsupported        = 5001
	ResultUnknownSessionID      = 5002
	ResultAuthorizationRejected = 5003
	ResultInvalidAVPValue       = 5004
	ResultMissingAVP            = 5005
	ResultResourcesExceeded     = 5006
	ResultContradictingAVPs     = 5007
	ResultAVPNotAllowed         = 5008
	ResultAVPOccursTooManyTimes = 5009
	ResultNoCommonApplication   = 5010
	ResultUnsupportedVersion    = 5011
	ResultUnableToComply        = 5012
	ResultInvalidBitInHeader    = 5013
	ResultInvalidAVPLength      = 5014
	ResultInvalidMessageLength  = 5015
	ResultInvalidAVPBitCombo    = 5016
	ResultNoCommonSecurity      = 5017
)

// resultNames are the codes as RFC 6733 writes them.
var resultNames = map[uint32]string{
	ResultMultiRoundAuth:         "DIAMETER_MULTI_ROUND_AUTH",
	ResultSuccess:                "DIAMETER_SUCCESS",
	ResultLimitedSuccess:         "DIAMETER_LIMITED_SUCCESS",
	ResultCommandUnsupported:     "DIAMETER_COMMAND_UNSUPPORTED",
	ResultUnableToDeliver:        "DIAMETER_UNABLE_TO_DELIVER",
	ResultRealmNotServed:         "DIAMETER_REALM_NOT_SERVED",
	ResultTooBusy:                "DIAMETER_TOO_BUSY",
	ResultLoopDetected:           "DIAMETER_LOOP_DETECTED",
	ResultRedirectIndication:     "DIAMETER_REDIRECT_INDICATION",
	ResultApplicationUnsupported: "DIAMETER_APPLICATION_UNSUPPORTED",
	ResultInvalidHeaderBits:      "DIAMETER_INVALID_HDR_BITS",
	ResultInvalidAVPBits:         "DIAMETER_INVALID_AVP_BITS",
	ResultUnknownPeer:            "DIAMETER_UNKNOWN_PEER",
	ResultAuthenticationRejected: "DIAMETER_AUTHENTICATION_REJECTED",
	ResultOutOfSpace:             "DIAMETER_OUT_OF_SPACE",
	ResultElectionLost:           "ELECTION_LOST",
	ResultAVPUnsupported:         "DIAMETER_AVP_UNSUPPORTED",
	ResultUnknownSessionID:       "DIAMETER_UNKNOWN_SESSION_ID",
	ResultAuthorizationRejected:  "DIAMETER_AUTHORIZATION_REJECTED",
	ResultInvalidAVPValue:        "DIAMETER_INVALID_AVP_VALUE",
	ResultMissingAVP:             "DIAMETER_MISSING_AVP",
	ResultResourcesExceeded:      "DIAMETER_RESOURCES_EXCEEDED",
	ResultContradictingAVPs:      "DIAMETER_CONTRADICTING_AVPS",
	ResultAVPNotAllowed:          "DIAMETER_AVP_NOT_ALLOWED",
	ResultAVPOccursTooManyTimes:  "DIAMETER_AVP_OCCURS_TOO_MANY_TIMES",
	ResultNoCommonApplication:    "DIAMETER_NO_COMMON_APPLICATION",
	ResultUnsupportedVersion:     "DIAMETER_UNSUPPORTED_VERSION",
	ResultUnableToComply:         "DIAMETER_UNABLE_TO_COMPLY",
	ResultInvalidBitInHeader:     "DIAMETER_INVALID_BIT_IN_HEADER",
	ResultInvalidAVPLength:       "DIAMETER_INVALID_AVP_LENGTH",
	ResultInvalidMessageLength:   "DIAMETER_INVALID_MESSAGE_LENGTH",
	ResultInvalidAVPBitCombo:     "DIAMETER_INVALID_AVP_BIT_COMBO",
	ResultNoCommonSecurity:       "DIAMETER_NO_COMMON_SECURITY",
}

// ResultName returns how RFC 6733, Section 7.1, writes a Result-Code, such as
// DIAMETER_SUCCESS; "" for one that it does not define.
func ResultName(code uint32) string { return resultNames[code] }
