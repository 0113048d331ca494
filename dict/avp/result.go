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
