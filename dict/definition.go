package dict

import (
	"tollbridge/dict/avp"
)

// A definition is an AVP of the dictionary that is no Information Element.
type definition struct {
	Code      uint32
	Name      string
	Type      Type
	Mandatory bool     // its RFC sets the M bit
	Members   []string // of a Grouped AVP
	Values    []value  // of an Enumerated AVP; empty for a registry's
}

// A value is a named value of an Enumerated AVP.
type value struct {
	Number uint32
	Name   string
}

// structural are the vendor's AVPs that are no Information Elements. The
// members of a Flow are the AVPs of all elements too.
var structural = []definition{
	{Code: Flow, Name: "Flow", Type: Grouped, Members: []string{"Information-Element", "Flow-Fragment", "Flow-Template"}},
	{Code: FlowTemplate, Name: "Flow-Template", Type: OctetString},
	{Code: FlowFragment, Name: "Flow-Fragment", Type: OctetString},
	{Code: InformationElement, Name: "Information-Element", Type: Grouped, Members: []string{"Enterprise-Number", "Element-Id", "Element-Octets"}},
	{Code: EnterpriseNumber, Name: "Enterprise-Number", Type: Unsigned32},
	{Code: ElementID, Name: "Element-Id", Type: Unsigned32},
	{Code: ElementOctets, Name: "Element-Octets", Type: OctetString},
	{Code: ClassUsage, Name: "Class-Usage", Type: Grouped, Members: []string{"Class-Name", "Accounting-Input-Octets", "Accounting-Output-Octets", "Accounting-Input-Packets", "Accounting-Output-Packets", "Zero-Rated"}},
	{Code: ClassName, Name: "Class-Name", Type: UTF8String},
	{Code: IntervalStart, Name: "Interval-Start", Type: Unsigned64},
	{Code: IntervalEnd, Name: "Interval-End", Type: Unsigned64},
	{Code: EventTime, Name: "Event-Time", Type: Unsigned64},
	{Code: SessionDuration, Name: "Session-Duration", Type: Unsigned64},
	{Code: OctetLayer, Name: "Octet-Layer", Type: Enumerated, Values: []value{{LayerLink, "LINK"}, {LayerIP, "IP"}}},
	{Code: UsageEstimated, Name: "Usage-Estimated", Type: Enumerated, Values: []value{{Measured, "MEASURED"}, {Estimated, "ESTIMATED"}}},
	{Code: RecordPart, Name: "Record-Part", Type: Unsigned32},
	{Code: RecordParts, Name: "Record-Parts", Type: Unsigned32},
	{Code: ExporterName, Name: "Exporter-Name", Type: UTF8String},
	{Code: RoamingAgreement, Name: "Roaming-Agreement", Type: UTF8String},
	{Code: ZeroRated, Name: "Zero-Rated", Type: Enumerated, Values: []value{{Charged, "CHARGED"}, {Free, "FREE"}}},
	{Code: Correction, Name: "Correction", Type: Grouped, Members: []string{"Corrected-Session", "Corrected-Number", "Correction-Direction", "Correction-Reason"}},
	{Code: CorrectedSession, Name: "Corrected-Session", Type: UTF8String},
	{Code: CorrectedNumber, Name: "Corrected-Number", Type: Unsigned32},
	{Code: CorrectionDirection, Name: "Correction-Direction", Type: Enumerated, Values: []value{{Debit, "DEBIT"}, {Credit, "CREDIT"}}},
	{Code: CorrectionReason, Name: "Correction-Reason", Type: UTF8String},
}

// access are further AVPs of network access servers (RFC 7155), which a user's
// binding may bring along.
var access = []definition{
	{Code: avp.NASPort, Name: "NAS-Port", Type: Unsigned32, Mandatory: true},
	{Code: avp.ServiceType, Name: "Service-Type", Type: Enumerated, Mandatory: true},
	{Code: 7, Name: "Framed-Protocol", Type: Enumerated, Mandatory: true},
	{Code: avp.Class, Name: "Class", Type: OctetString, Mandatory: true},
	{Code: avp.AcctSessionID, Name: "Acct-Session-Id", Type: OctetString, Mandatory: true},
	{Code: avp.NASPortType, Name: "NAS-Port-Type", Type: Enumerated, Mandatory: true},
	{Code: 77, Name: "Connect-Info", Type: UTF8String, Mandatory: true},
	{Code: avp.NASPortID, Name: "NAS-Port-Id", Type: UTF8String, Mandatory: true},
	{Code: avp.FramedInterfaceID, Name: "Framed-Interface-Id", Type: Unsigned64, Mandatory: true},
}

// base are the AVPs of the base protocol that a record is made of. Every
// Diameter node has them in its dictionary.
var base = []definition{
	{Code: avp.SessionID, Name: "Session-Id", Type: UTF8String, Mandatory: true},
	{Code: avp.OriginHost, Name: "Origin-Host", Type: DiameterIdentity, Mandatory: true},
	{Code: avp.OriginRealm, Name: "Origin-Realm", Type: DiameterIdentity, Mandatory: true},
	{Code: avp.DestinationRealm, Name: "Destination-Realm", Type: DiameterIdentity, Mandatory: true},
	{Code: avp.AccountingRecordType, Name: "Accounting-Record-Type", Type: Enumerated, Mandatory: true},
	{Code: avp.AccountingRecordNumber, Name: "Accounting-Record-Number", Type: Unsigned32, Mandatory: true},
	{Code: avp.AcctApplicationID, Name: "Acct-Application-Id", Type: Unsigned32, Mandatory: true},
	{Code: avp.UserName, Name: "User-Name", Type: UTF8String, Mandatory: true},
	{Code: avp.DestinationHost, Name: "Destination-Host", Type: DiameterIdentity, Mandatory: true},
	{Code: avp.AcctMultiSessionID, Name: "Acct-Multi-Session-Id", Type: UTF8String, Mandatory: true},
	{Code: avp.OriginStateID, Name: "Origin-State-Id", Type: Unsigned32, Mandatory: true},
	{Code: avp.EventTimestamp, Name: "Event-Timestamp", Type: Time, Mandatory: true},
}

// standard are the AVPs of the IETF beside the base protocol that accounting
// of flows uses: RADIUS attributes by RFC 7155, and the traffic classification
// of RFC 5777 (Sections 4 and 5). A dictionary for base accounting often lacks
// them.
var standard = []definition{
	{Code: avp.NASIPAddress, Name: "NAS-IP-Address", Type: OctetString, Mandatory: true},
	{Code: avp.FramedIPAddress, Name: "Framed-IP-Address", Type: OctetString, Mandatory: true},
	{Code: avp.FramedIPNetmask, Name: "Framed-IP-Netmask", Type: OctetString, Mandatory: true},
	{Code: avp.CalledStationID, Name: "Called-Station-Id", Type: UTF8String, Mandatory: true},
	{Code: avp.CallingStationID, Name: "Calling-Station-Id", Type: UTF8String, Mandatory: true},
	{Code: avp.NASIdentifier, Name: "NAS-Identifier", Type: UTF8String, Mandatory: true},
	{Code: avp.AcctSessionTime, Name: "Acct-Session-Time", Type: Unsigned32, Mandatory: true},
	{Code: 89, Name: "Chargeable-User-Identity", Type: OctetString},
	{Code: avp.NASIPv6Address, Name: "NAS-IPv6-Address", Type: OctetString, Mandatory: true},
	{Code: avp.FramedIPv6Prefix, Name: "Framed-IPv6-Prefix", Type: OctetString, Mandatory: true},
	{Code: avp.DelegatedIPv6Prefix, Name: "Delegated-IPv6-Prefix", Type: OctetString, Mandatory: true},
	{Code: 126, Name: "Operator-Name", Type: OctetString},
	{Code: 127, Name: "Location-Information", Type: OctetString},
	{Code: 168, Name: "Framed-IPv6-Address", Type: OctetString},
	{Code: avp.AccountingInputOctets, Name: "Accounting-Input-Octets", Type: Unsigned64, Mandatory: true},
	{Code: avp.AccountingOutputOctets, Name: "Accounting-Output-Octets", Type: Unsigned64, Mandatory: true},
	{Code: avp.AccountingInputPackets, Name: "Accounting-Input-Packets", Type: Unsigned64, Mandatory: true},
	{Code: avp.AccountingOutputPackets, Name: "Accounting-Output-Packets", Type: Unsigned64, Mandatory: true},

	{Code: avp.Classifier, Name: "Classifier", Type: Grouped, Members: []string{"Classifier-ID", "Protocol", "Direction", "From-Spec", "To-Spec", "Diffserv-Code-Point", "Fragmentation-Flag", "IP-Option", "TCP-Option", "TCP-Flags", "ICMP-Type", "ETH-Option"}},
	{Code: avp.ClassifierID, Name: "Classifier-ID", Type: OctetString},
	{Code: avp.Protocol, Name: "Protocol", Type: Enumerated},
	{Code: avp.Direction, Name: "Direction", Type: Enumerated, Values: []value{{0, "IN"}, {1, "OUT"}, {2, "BOTH"}}},
	{Code: avp.FromSpec, Name: "From-Spec", Type: Grouped, Members: specMembers},
	{Code: avp.ToSpec, Name: "To-Spec", Type: Grouped, Members: specMembers},
	{Code: avp.Negated, Name: "Negated", Type: Enumerated, Values: []value{{0, "False"}, {1, "True"}}},
	{Code: avp.IPAddress, Name: "IP-Address", Type: Address},
	{Code: avp.IPAddressRange, Name: "IP-Address-Range", Type: Grouped, Members: []string{"IP-Address-Start", "IP-Address-End"}},
	{Code: avp.IPAddressStart, Name: "IP-Address-Start", Type: Address},
	{Code: avp.IPAddressEnd, Name: "IP-Address-End", Type: Address},
	{Code: avp.IPAddressMask, Name: "IP-Address-Mask", Type: Grouped, Members: []string{"IP-Address", "IP-Bit-Mask-Width"}},
	{Code: avp.IPBitMaskWidth, Name: "IP-Bit-Mask-Width", Type: Unsigned32},
	{Code: avp.MACAddress, Name: "MAC-Address", Type: OctetString},
	{Code: avp.MACAddressMask, Name: "MAC-Address-Mask", Type: Grouped, Members: []string{"MAC-Address", "MAC-Address-Mask-Pattern"}},
	{Code: 526, Name: "MAC-Address-Mask-Pattern", Type: OctetString},
	{Code: 527, Name: "EUI64-Address", Type: OctetString},
	{Code: 528, Name: "EUI64-Address-Mask", Type: Grouped, Members: []string{"EUI64-Address", "EUI64-Address-Mask-Pattern"}},
	{Code: 529, Name: "EUI64-Address-Mask-Pattern", Type: OctetString},
	{Code: avp.Port, Name: "Port", Type: Integer32},
	{Code: avp.PortRange, Name: "Port-Range", Type: Grouped, Members: []string{"Port-Start", "Port-End"}},
	{Code: avp.PortStart, Name: "Port-Start", Type: Integer32},
	{Code: avp.PortEnd, Name: "Port-End", Type: Integer32},
	{Code: avp.UseAssignedAddress, Name: "Use-Assigned-Address", Type: Enumerated, Values: []value{{0, "False"}, {1, "True"}}},
	{Code: avp.DiffservCodePoint, Name: "Diffserv-Code-Point", Type: Enumerated},
	{Code: avp.FragmentationFlag, Name: "Fragmentation-Flag", Type: Enumerated},
	{Code: 537, Name: "IP-Option", Type: Grouped, Members: []string{"IP-Option-Type", "IP-Option-Value", "Negated"}},
	{Code: 538, Name: "IP-Option-Type", Type: Enumerated},
	{Code: 539, Name: "IP-Option-Value", Type: OctetString},
	{Code: 540, Name: "TCP-Option", Type: Grouped, Members: []string{"TCP-Option-Type", "TCP-Option-Value", "Negated"}},
	{Code: 541, Name: "TCP-Option-Type", Type: Enumerated},
	{Code: 542, Name: "TCP-Option-Value", Type: OctetString},
	{Code: avp.TCPFlags, Name: "TCP-Flags", Type: Grouped, Members: []string{"TCP-Flag-Type", "Negated"}},
	{Code: avp.TCPFlagType, Name: "TCP-Flag-Type", Type: Unsigned32},
	{Code: avp.ICMPType, Name: "ICMP-Type", Type: Grouped, Members: []string{"ICMP-Type-Number", "ICMP-Code", "Negated"}},
	{Code: avp.ICMPTypeNumber, Name: "ICMP-Type-Number", Type: Enumerated},
	{Code: avp.ICMPCode, Name: "ICMP-Code", Type: Enumerated},
	{Code: 548, Name: "ETH-Option", Type: Grouped, Members: []string{"ETH-Proto-Type", "VLAN-ID-Range", "User-Priority-Range"}},
	{Code: 549, Name: "ETH-Proto-Type", Type: Grouped, Members: []string{"ETH-Ether-Type", "ETH-SAP"}},
	{Code: 550, Name: "ETH-Ether-Type", Type: OctetString},
	{Code: 551, Name: "ETH-SAP", Type: OctetString},
	{Code: 552, Name: "VLAN-ID-Range", Type: Grouped, Members: []string{"S-VID-Start", "S-VID-End", "C-VID-Start", "C-VID-End"}},
	{Code: 553, Name: "S-VID-Start", Type: Unsigned32},
	{Code: 554, Name: "S-VID-End", Type: Unsigned32},
	{Code: 555, Name: "C-VID-Start", Type: Unsigned32},
	{Code: 556, Name: "C-VID-End", Type: Unsigned32},
	{Code: 557, Name: "User-Priority-Range", Type: Grouped, Members: []string{"Low-User-Priority", "High-User-Priority"}},
	{Code: 558, Name: "Low-User-Priority", Type: Unsigned32},
	{Code: 559, Name: "High-User-Priority", Type: Unsigned32},
	{Code: 560, Name: "Time-Of-Day-Condition", Type: Grouped, Members: []string{"Time-Of-Day-Start", "Time-Of-Day-End", "Day-Of-Week-Mask", "Day-Of-Month-Mask", "Month-Of-Year-Mask", "Absolute-Start-Time", "Absolute-End-Time", "Timezone-Flag"}},
	{Code: 561, Name: "Time-Of-Day-Start", Type: Unsigned32},
	{Code: 562, Name: "Time-Of-Day-End", Type: Unsigned32},
	{Code: 563, Name: "Day-Of-Week-Mask", Type: Unsigned32},
	{Code: 564, Name: "Day-Of-Month-Mask", Type: Unsigned32},
	{Code: 565, Name: "Month-Of-Year-Mask", Type: Unsigned32},
	{Code: 566, Name: "Absolute-Start-Time", Type: Time},
	{Code: 567, Name: "Absolute-Start-Fractional-Seconds", Type: Unsigned32},
	{Code: 568, Name: "Absolute-End-Time", Type: Time},
	{Code: 569, Name: "Absolute-End-Fractional-Seconds", Type: Unsigned32},
	{Code: 570, Name: "Timezone-Flag", Type: Enumerated},
}

// specMembers are the members of From-Spec and To-Spec (RFC 5777, Sections
// 4.1.5 and 4.1.6).
var specMembers = []string{
	"IP-Address", "IP-Address-Range", "IP-Address-Mask", "MAC-Address", "MAC-Address-Mask", "EUI64-Address",
	"EUI64-Address-Mask", "Port", "Port-Range", "Negated", "Use-Assigned-Address",
}

// least returns the fewest octets of data of the type.
func (t Type) least() int {
	switch t {
	case Integer32, Unsigned32, Float32, Enumerated, Time:
		return 4
	case Integer64, Unsigned64, Float64:
		return 8
	case Address:
		return 6
	}
	return 0
}
