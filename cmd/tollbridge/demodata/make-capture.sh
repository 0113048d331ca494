#!/bin/sh
# Makes capture.pcap and users.csv: some 25 seconds of three subscribers' real
# traffic, between network namespaces of this machine. Then run truth.sh.
#
#   alice 192.0.2.11 2001:db8:1:1::11 --+
#   bob   192.0.2.12 2001:db8:1:2::12 --+-- access (bridge of the router) -- internet
#   carol 192.0.2.13 2001:db8:1:3::13 --+      ^ tcpdump                     198.51.100.10
#                                                                            2001:db8:ffff::10
#
# tcpdump listens on the bridge itself, in promiscuous mode. The bridge hands
# every frame up exactly once, whether subscribers talk to the internet (routed) or
# to each other (switched), so each packet is captured exactly once. Offloads
# are off, so packets have the sizes that they would have on a wire. 128 octets
# of each are kept. ARP and Neighbor Discovery are in the capture, as they are
# on any access link: ARP is no IP, and what routers and link-local addresses
# say is no subscriber's.
#
# Needs root and Debian's iproute2 ethtool tcpdump nginx-light curl bind9-dnsutils
# dnsmasq-base iperf3 iputils-ping. Changes nothing outside its own namespaces.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
prefix=tbdemo$$

ns() { where=$prefix-$1; shift; ip netns exec "$where" "$@"; }

cleanup() {
	for n in alice bob carol router internet; do
		ip netns pids "$prefix-$n" 2>/dev/null | xargs -r kill 2>/dev/null || true
		ip netns del "$prefix-$n" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# link NS1 IF1 MAC1 NS2 IF2 MAC2: a wire. MAC addresses are those for documentation (RFC 7042).
link() {
	ip -n "$prefix-$1" link add name "$2" address "00:00:5e:00:53:$3" type veth \
		peer netns "$prefix-$4" name "$5" address "00:00:5e:00:53:$6"
	ns "$1" ethtool -K "$2" tso off gso off gro off tx off >/dev/null
	ns "$4" ethtool -K "$5" tso off gso off gro off tx off >/dev/null
	ip -n "$prefix-$1" link set "$2" up
	ip -n "$prefix-$4" link set "$5" up
}

for n in router alice bob carol internet; do
	ip netns add "$prefix-$n"
	ns $n sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
		net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0
	ip -n "$prefix-$n" link set lo up
done

ip -n "$prefix-router" link add access address 00:00:5e:00:53:01 type bridge mcast_snooping 0
ip -n "$prefix-router" link set access up
ip -n "$prefix-router" addr add 192.0.2.1/24 dev access
ip -n "$prefix-router" addr add 2001:db8:1::1/48 dev access nodad
i=1
for n in alice bob carol; do
	link $n eth0 1$i router port$i 2$i
	ip -n "$prefix-router" link set port$i master access
	ip -n "$prefix-$n" addr add 192.0.2.1$i/24 dev eth0
	ip -n "$prefix-$n" addr add 2001:db8:1:$i::1$i/48 dev eth0 nodad
	ip -n "$prefix-$n" route add default via 192.0.2.1
	ip -n "$prefix-$n" -6 route add default via 2001:db8:1::1
	i=$((i + 1))
done
link internet eth0 10 router wan 02
ip -n "$prefix-router" addr add 198.51.100.1/24 dev wan
ip -n "$prefix-router" addr add 2001:db8:ffff::1/64 dev wan nodad
ip -n "$prefix-internet" addr add 198.51.100.10/24 dev eth0
ip -n "$prefix-internet" addr add 2001:db8:ffff::10/64 dev eth0 nodad
ip -n "$prefix-internet" route add default via 198.51.100.1
ip -n "$prefix-internet" -6 route add default via 2001:db8:ffff::1
ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

# The internet: a web server that takes uploads, a name server, iperf3.
mkdir "$work/www" "$work/www/up"
chmod -R a+rwx "$work"
head -c 4000000 /dev/urandom >"$work/www/large.bin"
head -c 60000 /dev/urandom >"$work/www/page.html"
cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log $work/nginx.log;
events {}
http {
	access_log off;
	client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
	uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
	server {
		listen 80; listen [::]:80;
		root $work/www;
		location /up/ { dav_methods PUT; client_max_body_size 8m; }
	}
}
CONF
ns internet nginx -c "$work/nginx.conf" &
ns internet dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root \
	--address=/www.example.net/198.51.100.10 --address=/www.example.net/2001:db8:ffff::10 \
	--txt-record=example.net,"v=spf1 ip4:198.51.100.0/24 ip6:2001:db8:ffff::/64 -all" &
for port in 5201 5202 5203; do ns internet iperf3 -s -p $port >/dev/null & done
ns alice iperf3 -s >/dev/null &
ns bob iperf3 -s >/dev/null &

until_listening() { until ns "$1" ss -Hltn "sport = :$2" | grep -q .; do sleep 0.1; done; }
until_listening internet 80
until_listening internet 53
for port in 5201 5202 5203; do until_listening internet $port; done
until_listening alice 5201
until_listening bob 5201

ns router tcpdump -i access -p -Z root -s 128 -w "$work/capture.pcap" -B 16384 2>"$work/tcpdump.log" &
tcpdump=$!
ip -n "$prefix-router" link set access promisc on
until grep -q 'listening on' "$work/tcpdump.log"; do sleep 0.1; done
ns router ping -q -c 1 192.0.2.11 >/dev/null # the router's own

resolve() { # NS ADDRESS-OF-SERVER TIMES
	k=0
	while [ $k -lt "$3" ]; do
		ns "$1" dig +short @"$2" www.example.net A >/dev/null
		ns "$1" dig +short @"$2" www.example.net AAAA >/dev/null
		ns "$1" dig +short @"$2" example.net TXT >/dev/null
		sleep 2
		k=$((k + 1))
	done
}
browse() { # NS URL TIMES
	k=0
	while [ $k -lt "$3" ]; do
		ns "$1" curl -sSf -o /dev/null "$2/page.html"
		sleep 3
		k=$((k + 1))
	done
}

jobs=
{
	ns alice curl -sSf --limit-rate 100k -r 0-1999999 -o /dev/null http://198.51.100.10/large.bin
	ns alice curl -sSf --limit-rate 200k -T "$work/www/page.html" 'http://[2001:db8:ffff::10]/up/alice'
} & jobs="$jobs $!"
{ resolve alice 198.51.100.10 9; } & jobs="$jobs $!"
{ ns alice ping -q -c 20 -i 1 -Q 0xb8 198.51.100.10 >/dev/null; } & jobs="$jobs $!"
{
	ns bob curl -sSf --limit-rate 120k -r 0-1499999 -o /dev/null 'http://[2001:db8:ffff::10]/large.bin'
	ns bob iperf3 -c 192.0.2.11 -n 300K >/dev/null
	ns bob iperf3 -6 -c 2001:db8:ffff::10 -p 5202 -n 400K -R --dscp AF41 >/dev/null
} & jobs="$jobs $!"
{ resolve bob 2001:db8:ffff::10 8; } & jobs="$jobs $!"
{ ns bob ping -q -c 18 -i 1 -s 400 -Q 0x28 2001:db8:ffff::10 >/dev/null; } & jobs="$jobs $!"
{
	ns carol iperf3 -c 198.51.100.10 -p 5203 -u -b 160k -l 160 -t 10 --dscp EF >/dev/null
	head -c 700000 "$work/www/large.bin" >"$work/photo"
	ns carol curl -sSf --limit-rate 150k -T "$work/photo" http://198.51.100.10/up/carol
	ns carol iperf3 -6 -c 2001:db8:1:2::12 -u -b 200k -l 1000 -t 3 --dscp AF21 >/dev/null
} & jobs="$jobs $!"
{ browse carol http://198.51.100.10 4; browse carol 'http://[2001:db8:ffff::10]' 3; } & jobs="$jobs $!"
{ ns carol ping -q -c 15 -i 1.3 2001:db8:1:1::11 >/dev/null; } & jobs="$jobs $!"
{ ns carol ping -q -c 2 -i 1 -W 1 203.0.113.1 >/dev/null || true; } & jobs="$jobs $!" # unreachable
{ # a UDP port that nobody listens on, and a datagram in fragments
	ns alice dig +tries=1 +timeout=1 -p 9 @198.51.100.10 www.example.net >/dev/null || true
	ns alice ping -q -c 3 -s 3000 198.51.100.10 >/dev/null
	ns bob ping -q -c 3 -s 3000 2001:db8:ffff::10 >/dev/null
} & jobs="$jobs $!"
for j in $jobs; do wait "$j"; done

sleep 1
kill -INT "$(ip netns pids "$prefix-router")"
wait $tcpdump
cat "$work/tcpdump.log" >&2
grep -q '^0 packets dropped by kernel' "$work/tcpdump.log"
cp "$work/capture.pcap" capture.pcap

# Bindings end at the first full minute after the traffic, so that whoever
# meters the capture later sees the sessions end.
end=$(date -u -d '1 minute' +%FT%H:%M:00Z)
day=$(tcpdump -r capture.pcap -c 1 -tttt 2>/dev/null | cut -c1-10)
{
	echo "# Who held which addresses while capture.pcap was taken, from (inclusive) until (exclusive)."
	echo "prefix,user,from,until"
	i=1
	for n in alice bob carol; do
		echo "192.0.2.1$i/32,$n,${day}T00:00:00Z,$end"
		echo "2001:db8:1:$i::/64,$n,${day}T00:00:00Z,$end"
		i=$((i + 1))
	done
} >users.csv
ls -l capture.pcap users.csv >&2
