package avp

// Commands: a request and its answer share a code (RFC 6733, Section 3.1).
const (
	CommandCapabilitiesExchange = 257 // CER, CEA
	CommandReAuth               = 258 // RAR, RAA
	CommandAccounting           = 271 // ACR, ACA
	CommandAbortSession         = 274 // ASR, ASA
	CommandSessionTermination   = 275 // STR, STA
	CommandDeviceWatchdog       = 280 // DWR, DWA
	CommandDisconnectPeer       = 282 // DPR, DPA
)

// Application-Ids (RFC 6733, Section 2.4; RFC 7155).
const (
	ApplicationCommon     = 0 // the base protocol's own messages
	ApplicationNASREQ     = 1
	ApplicationAccounting = 3 // Diameter base accounting
	ApplicationRelay      = 0xffffffff
)

// AVP codes of the base protocol (RFC 6733, Section 4.5).
const (
	UserName                    = 1
	Class                       = 25
	ProxyState                  = 33
	AcctSessionID               = 44
	AcctMultiSessionID          = 50
	EventTimestamp              = 55
	AcctInterimInterval         = 85
	HostIPAddress               = 257
	AuthApplicationID           = 258
	AcctApplicationID           = 259
	VendorSpecificApplicationID = 260
	RedirectHostUsage           = 261
	RedirectMaxCacheTime        = 262
	SessionID                   = 263
	OriginHost                  = 264
	SupportedVendorID           = 265
	VendorID                    = 266
	FirmwareRevision            = 267
	ResultCodeAVP               = 268
	ProductName                 = 269
	DisconnectCause             = 273
	OriginStateID               = 278
	FailedAVP                   = 279
	ProxyHost                   = 280
	ErrorMessage                = 281
	RouteRecord                 = 282
	DestinationRealm            = 283
	ProxyInfo                   = 284
	ReAuthRequestType           = 285
	AccountingSubSessionID      = 287
	RedirectHost                = 292
	DestinationHost             = 293
	ErrorReportingHost          = 294
	TerminationCause            = 295
	OriginRealm                 = 296
	ExperimentalResult          = 297
	ExperimentalResultCode      = 298
	InbandSecurityID            = 299
	AccountingRecordType        = 480
	AccountingRealtimeRequired  = 483
	AccountingRecordNumber      = 485
)

// AVP codes of the NAS application (RFC 7155, Section 4) and of RADIUS
// attributes that it takes over.
const (
	NASIPAddress            = 4
	NASPort                 = 5
	ServiceType             = 6
	FramedIPAddress         = 8
	FramedIPNetmask         = 9
	FilterID                = 11
	CalledStationID         = 30
	CallingStationID        = 31
	NASIdentifier           = 32
	AcctDelayTime           = 41
	AcctSessionTime         = 46
	NASPortType             = 61
	NASPortID               = 87
	NASIPv6Address          = 95
	ChargeableUserIdentity  = 89
	FramedInterfaceID       = 96
	FramedIPv6Prefix        = 97
	DelegatedIPv6Prefix     = 123 // RFC 4818
	OperatorName            = 126 // RFC 5580
	AccountingInputOctets   = 363
	AccountingOutputOctets  = 364
	AccountingInputPackets  = 365
	AccountingOutputPackets = 366
)

// AVP codes of traffic classification (RFC 5777, Section 9.1).
const (
	FilterRule           = 509
	FilterRulePrecedence = 510
	Classifier           = 511
	ClassifierID         = 512
	Protocol             = 513
	Direction            = 514
	FromSpec             = 515
	ToSpec               = 516
	Negated              = 517
	IPAddress            = 518
	IPAddressRange       = 519
	IPAddressStart       = 520
	IPAddressEnd         = 521
	IPAddressMask        = 522
	IPBitMaskWidth       = 523
	MACAddress           = 524
	MACAddressMask       = 525
	Port                 = 530
	PortRange            = 531
	PortStart            = 532
	PortEnd              = 533
	UseAssignedAddress   = 534
	DiffservCodePoint    = 535
	FragmentationFlag    = 536
	TCPFlags             = 543
	TCPFlagType          = 544
	ICMPType             = 545
	ICMPTypeNumber       = 546
	ICMPCode             = 547
)

// Values of Accounting-Record-Type (RFC 6733, Section 9.8.1).
const (
	EventRecord   = 1
	StartRecord   = 2
	InterimRecord = 3
	StopRecord    = 4
)

// Values of Accounting-Realtime-Required (RFC 6733, Section 9.8.7).
const (
	DeliverAndGrant = 1
	GrantAndStore   = 2
	GrantAndLose    = 3
)

// Values of Disconnect-Cause (RFC 6733, Section 5.4.3).
const (
	Rebooting            = 0
	Busy                 = 1
	DoNotWantToTalkToYou = 2
)

// NoInbandSecurity is the value of Inband-Security-Id that offers no TLS
// within the connection (RFC 6733, Section 6.10).
const NoInbandSecurity = 0
