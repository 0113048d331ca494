package meter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"tollbridge/meter/pcap"

	"golang.org/x/sys/unix"
)

const (
	// The ring that the kernel writes packets to: 16 MiB, handed over in blocks
	// as they fill, or after retireBlock.
	blockSize   = 1 << 18
	blocks      = 64
	retireBlock = 100 * time.Millisecond

	// liveSnap is how much of each packet is taken: the IP header, options or
	// extension headers, and what the parser reads of the transport header.
	liveSnap = 256

	// Offsets in a TPACKET_V3 block and packet header (linux/if_packet.h).
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16

	addressAt = int(unsafe.Sizeof(unix.Tpacket3Hdr{})+unix.TPACKET_ALIGNMENT-1) &^ (unix.TPACKET_ALIGNMENT - 1)
)

// Live meters what a network interface receives and sends, until ctx ends;
// then it returns nil. What the kernel holds at that moment, at most 100 ms of
// packets, is not metered. Flows that have not ended stay, as after ReadFile.
// The interface is set to promiscuous mode meanwhile. Packets that an offload has
// put together, or has yet to cut, count as one packet with the octets of one;
// turn GRO and TSO off where packets must be exact. Needs CAP_NET_RAW.
// Errors are the operating system's or those of Packets; the interface going
// down for good is unix.ENETDOWN.
func (m *Meter) Live(ctx context.Context, name string) error {
	l, err := openLive(name)
	if err != nil {
		return fmt.Errorf("meter: open interface %s: %w", name, err)
	}
	defer l.close()
	return m.live(ctx, l, name)
}

func (m *Meter) live(ctx context.Context, l *live, name string) error {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	m.config.Log.Info("metering", "interface", name)
	for {
		if err := l.wait(m.pause()); err != nil {
			return fmt.Errorf("meter: read interface %s: %w", name, err)
		}
		for ctx.Err() == nil && l.ready() {
			if err := l.block(ctx, m); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		m.lost(l, name)
		if ctx.Err() != nil {
			return nil
		}
		if err := m.Advance(ctx, time.Now().UnixNano()); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// pause returns how long to wait for packets before looking for ended flows.
func (m *Meter) pause() time.Duration {
	return min(max(time.Duration(min(m.idle, m.active, m.final)/4), 10*time.Millisecond), time.Second)
}

// lost counts what the kernel had no room for.
func (m *Meter) lost(l *live, name string) {
	s, err := unix.GetsockoptTpacketStatsV3(l.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || s.Drops == 0 {
		return
	}
	if m.stats.KernelDropped == 0 {
		m.config.Log.Warn("kernel drops packets", "interface", name, "packets", s.Drops)
	}
	m.stats.KernelDropped += uint64(s.Drops)
}

// A live is a packet socket with its ring.
type live struct {
	fd       int
	event    int // an eventfd that ends a wait
	link     pcap.LinkType
	index    uint32
	loopback bool // each packet passes twice, sent and received
	ring     []byte
	current  int // block to be read next
	packets  [batch]Packet
}

func openLive(name string) (l *live, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Without a protocol the socket receives nothing until it is bound.
	link, socketType, err := linkOf(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, socketType|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w (it needs root or CAP_NET_RAW)", err)
	}
	l = &live{fd: fd, event: -1, link: link, index: uint32(i.Index), loopback: i.Flags&net.FlagLoopback != 0}
	defer func() {
		if err != nil {
			l.close()
			l = nil
		}
	}()
	if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return l, fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return l, fmt.Errorf("TPACKET_V3: %w", err)
	}
	// The shortest filter there is: take every packet, cut to liveSnap octets.
	snap := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: liveSnap}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &snap}); err != nil {
		return l, fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blocks,
		Frame_size: 2048, Frame_nr: blockSize / 2048 * blocks,
		Retire_blk_tov: uint32(retireBlock.Milliseconds()),
	}); err != nil {
		return l, fmt.Errorf("ring of %d octets: %w", blockSize*blocks, err)
	}
	if l.ring, err = unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return l, fmt.Errorf("map ring: %w", err)
	}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC}); err != nil {
		return l, fmt.Errorf("promiscuous mode: %w", err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		return l, fmt.Errorf("bind: %w", err)
	}
	return l, nil
}

// linkOf returns what packets of an interface begin with, and the type of packet
// socket that has them so: Ethernet frames whole, since kernels differ in what
// SOCK_DGRAM makes of two VLAN tags; packets of any other interface, a tunnel,
// without their link-layer header.
func linkOf(name string) (pcap.LinkType, int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, request); err != nil {
		return 0, 0, fmt.Errorf("hardware type: %w", err)
	}
	switch request.Uint16() {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return pcap.LinkEthernet, unix.SOCK_RAW, nil
	}
	return pcap.LinkRaw, unix.SOCK_DGRAM, nil
}

func (l *live) close() {
	if l.ring != nil {
		_ = unix.Munmap(l.ring)
	}
	if l.event >= 0 {
		_ = unix.Close(l.event)
	}
	_ = unix.Close(l.fd)
}

// wake ends a wait, also one that has yet to begin.
func (l *live) wake() {
	_, _ = unix.Write(l.event, binary.NativeEndian.AppendUint64(nil, 1))
}

// wait returns when a block may be ready, when woken, or after the time given.
func (l *live) wait(pause time.Duration) error {
	if l.ready() {
		return nil
	}
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.event), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(pause.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	if fds[0].Revents&unix.POLLERR != 0 {
		code, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if code != 0 {
			return unix.Errno(code)
		}
	}
	return nil
}

// status is where kernel and user pass a block to and fro.
func (l *live) status() *uint32 {
	return (*uint32)(unsafe.Pointer(&l.ring[l.current*blockSize+blockStatus]))
}

// ready reports whether the current block is ours.
func (l *live) ready() bool {
	return atomic.LoadUint32(l.status())&unix.TP_STATUS_USER != 0
}

// block meters the packets of the current block and gives it back.
func (l *live) block(ctx context.Context, m *Meter) error {
	b := l.ring[l.current*blockSize : (l.current+1)*blockSize]
	left := binary.NativeEndian.Uint32(b[blockPackets:])
	at := binary.NativeEndian.Uint32(b[blockFirst:])
	var err error
	for left > 0 && err == nil {
		n := 0
		for left > 0 && n < len(l.packets) {
			left--
			next := l.packet(b[at:], &l.packets[n])
			if l.packets[n].Data != nil {
				n++
			}
			at += next
		}
		err = m.Packets(ctx, l.packets[:n])
	}
	atomic.StoreUint32(l.status(), unix.TP_STATUS_KERNEL)
	l.current = (l.current + 1) % blocks
	return err
}

// packet reads the packet at the start of b. It returns where the next begins;
// p has no data if the packet does not count.
func (l *live) packet(b []byte, p *Packet) (next uint32) {
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
	address := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[addressAt]))
	*p = Packet{}
	if l.loopback && address.Pkttype == unix.PACKET_OUTGOING {
		return h.Next_offset
	}
	p.Time = int64(h.Sec)*1e9 + int64(h.Nsec)
	p.Link = l.link
	p.Interface = l.index
	p.Length = int(h.Len)
	p.Data = b[h.Mac : uint32(h.Mac)+h.Snaplen]
	return h.Next_offset
}
