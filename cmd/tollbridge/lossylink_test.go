package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"tollbridge/internal/peertest"
)

// A lossyLink is a point-to-point link of two network namespaces, whose packets
// pass through this process: some of them are lost, by a seed.
type lossyLink struct {
	ends  [2]*os.File
	lost  atomic.Int64
	count atomic.Int64
}

// connectLossy is connect by a link that loses one packet of so many, but never
// two of a direction in a row, so that nothing stands still for long.
func connectLossy(t *testing.T, name string, near netns, nearAddr string, far netns, farAddr string, oneOf uint32, seed uint64) (wire, *lossyLink) {
	t.Helper()
	l := &lossyLink{}
	done := make(chan struct{}, len(l.ends))
	for i, end := range []struct {
		ns   netns
		addr string
	}{{near, nearAddr}, {far, farAddr}} {
		device := fmt.Sprintf("tb%d-%d", os.Getpid()%100_000, i)
		f, err := openTUN(device)
		if err != nil {
			peertest.Missing(t, "no TUN device can be made: "+err.Error())
		}
		l.ends[i] = f
		ip(t, "link", "set", device, "netns", string(end.ns))
		ip(t, "-n", string(end.ns), "link", "set", device, "name", name)
		ip(t, "-n", string(end.ns), "addr", "add", end.addr+"/24", "dev", name)
		ip(t, "-n", string(end.ns), "link", "set", name, "up")
	}
	for i := range l.ends {
		go func() {
			l.carry(l.ends[i], l.ends[1-i], oneOf, rand.New(rand.NewPCG(seed, uint64(i))))
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		for _, f := range l.ends {
			f.Close()
		}
		for range l.ends {
			<-done
		}
		t.Logf("%d of %d packets were lost on the link", l.lost.Load(), l.count.Load())
	})
	return wire{t, name, far}, l
}

// carry carries packets one way until the device is closed.
func (l *lossyLink) carry(from, to *os.File, oneOf uint32, rng *rand.Rand) {
	packet := make([]byte, 1<<16)
	before := false
	for {
		n, err := from.Read(packet)
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return
			}
			continue // the device is down for now
		}
		l.count.Add(1)
		if before = !before && rng.Uint32N(oneOf) == 0; before {
			l.lost.Add(1)
			continue
		}
		to.Write(packet[:n]) //nolint:errcheck // a packet that the other end does not take is lost
	}
}

// openTUN makes a TUN device, which is gone when it is closed.
func openTUN(name string) (*os.File, error) {
	const setInterface, tun, bare = 0x400454ca, 0x0001, 0x1000 // TUNSETIFF, IFF_TUN, IFF_NO_PI
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var request struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:15], name)
	request.flags = tun | bare
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), setInterface, uintptr(unsafe.Pointer(&request))); errno != 0 {
		syscall.Close(fd) //nolint:errcheck // it was never used
		return nil, errno
	}
	return os.NewFile(uintptr(fd), name), nil
}
