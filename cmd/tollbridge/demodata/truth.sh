#!/bin/sh
# Makes truth.csv from capture.pcap with tshark and awk alone, so that nothing
# of Tollbridge can be wrong in the same way. A packet's octets are those of the
# IP layer: Total Length for IPv4, Payload Length and the 40 octets of the
# header for IPv6. Only the outermost IP header counts, fragments count as they
# are. A packet between two users counts twice: as input of its sender and as
# output of its receiver. Needs Debian's tshark.
set -eu
cd "$(dirname "$0")"
tshark -n -r capture.pcap -o ip.defragment:FALSE -o ipv6.defragment:FALSE \
	-Y 'ip || ipv6' -T fields -E occurrence=f -E separator=, \
	-e eth.type -e ip.src -e ip.dst -e ip.len -e ipv6.src -e ipv6.dst -e ipv6.plen |
awk -F, '
	function user(a) {
		if (a == "192.0.2.11" || a ~ /^2001:db8:1:1:/) return "alice"
		if (a == "192.0.2.12" || a ~ /^2001:db8:1:2:/) return "bob"
		if (a == "192.0.2.13" || a ~ /^2001:db8:1:3:/) return "carol"
		return "-"
	}
	{
		# An ICMP error quotes a header of its own version, so the frame type decides.
		v6 = $1 == "0x86dd"
		from = user(v6 ? $5 : $2); to = user(v6 ? $6 : $3); octets = v6 ? $7 + 40 : $4
		if (from != "-" || to == "-") { io[from] += octets; ip[from]++ }
		if (to != "-") { oo[to] += octets; op[to]++ }
	}
	END {
		print "# Octets (IP layer) and packets of capture.pcap per user: input is from the user, output to the user."
		print "# User - is every packet that has no user on either side, all of it shown as input."
		print "user,input_octets,input_packets,output_octets,output_packets"
		split("alice bob carol -", users, " ")
		for (i = 1; i <= 4; i++) { u = users[i]; printf "%s,%d,%d,%d,%d\n", u, io[u], ip[u], oo[u], op[u] }
	}
' >truth.csv
