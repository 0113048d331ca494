package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

const meterPackets = 3_000_000

func metering(l *lab) comparison {
	capture := sync.OnceValues(func() (string, error) {
		name := filepath.Join(l.dir, "capture.pcap")
		return name, writeCapture(name, l.size(meterPackets))
	})
	return comparison{
		name: "meter", what: "Meter packets of a capture file, 50,000 flows", unit: "packets", aim: 0.45,
		ours: contender{"tollbridge meter", func(ctx context.Context) (sample, error) {
			return l.meter(ctx, capture, func(dir, file, to string) []string {
				return []string{l.tollbridge, "meter", "--udp", "--to", to, "-r", file}
			})
		}},
		peers: []contender{{"softflowd", func(ctx context.Context) (sample, error) {
			return l.meter(ctx, capture, func(dir, file, to string) []string {
				// With a control socket it may wait at the file's end for somebody to connect.
				return []string{"softflowd", "-r", file, "-n", to, "-v", "10", "-m", strconv.Itoa(2 * captureFlows), "-d",
					"-p", filepath.Join(dir, "pid"), "-c", "none"}
			})
		}}},
	}
}

// meter runs a meter on the capture, with a collector that reads and forgets.
func (l *lab) meter(ctx context.Context, capture func() (string, error), command func(dir, file, to string) []string) (sample, error) {
	file, err := capture()
	if err != nil {
		return sample{}, err
	}
	dir, remove, err := l.scratch()
	if err != nil {
		return sample{}, err
	}
	defer remove()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return sample{}, err
	}
	drained := make(chan uint64, 1)
	go func() {
		b := make([]byte, 1<<16)
		var octets uint64
		for {
			n, _, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				drained <- octets
				return
			}
			octets += uint64(n)
		}
	}()
	words := command(dir, file, conn.LocalAddr().String())
	cpu, output, err := func() (cpu time.Duration, output string, err error) {
		p, err := startProcess(ctx, words[0], words[1:]...)
		if err != nil {
			return 0, "", err
		}
		defer p.kill()
		cpu, err = p.wait()
		return cpu, p.stdout.String(), err
	}()
	conn.Close()
	if octets := <-drained; err == nil && octets == 0 {
		err = errors.New("nothing was exported")
	}
	if err != nil {
		return sample{}, err
	}
	n, err := packetsMetered(output)
	if err != nil {
		return sample{}, err
	}
	if want := uint64(l.size(meterPackets)); n != want {
		return sample{}, fmt.Errorf("%d packets metered of %d", n, want)
	}
	return sample{cpu: cpu, n: n}, nil
}

// packetsLine matches what either meter says at its end.
var packetsLine = regexp.MustCompile(`(?m)^Packets processed: (\d+)|^(\d+) packets and`)

func packetsMetered(output string) (uint64, error) {
	m := packetsLine.FindStringSubmatch(output)
	if m == nil {
		return 0, fmt.Errorf("no number of packets in: %s", output)
	}
	return strconv.ParseUint(m[1]+m[2], 10, 64)
}
