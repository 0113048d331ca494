// Package demodata holds the capture that the demo meters, and what is known
// about it. make-capture.sh and truth.sh made it; neither shares code with
// Tollbridge.
package demodata

import _ "embed"

// Capture is a pcap file of 19 seconds of real traffic: three subscribers, alice,
// bob and carol, with an IPv4 host address and an IPv6 /64 each, who browse,
// upload, resolve names, stream and ping, among themselves too. Each packet was
// captured once, 128 octets of it kept. A few packets are nobody's: routers'
// and link-local addresses' ICMPv6, and ARP.
//
//go:embed capture.pcap
var Capture []byte

// Users is a users file (CSV: prefix,user,from,until; times in RFC 3339) that
// says who held which addresses while Capture was taken.
//
//go:embed users.csv
var Users []byte

// Truth is the octets (IP layer) and packets of Capture per user as tshark
// counts them (CSV: user,input_octets,input_packets,output_octets,output_packets,
// after comment lines that start with #). Input is from the user, output to the
// user; a packet between two users is in both. User "-" has the packets of
// nobody, as input.
//
//go:embed truth.csv
var Truth []byte
