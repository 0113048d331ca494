package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A socket is a line of /proc/net/udp: what the kernel knows of a receiver.
type socket struct {
	queued  uint64 // octets that wait to be read
	dropped uint64 // datagrams that found no room
}

// udpSocket returns the sockets bound to port, summed; false if there is none.
func udpSocket(port int) (socket, bool, error) {
	b, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return socket{}, false, err
	}
	var sum socket
	found := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 13 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		_, queue, _ := strings.Cut(f[4], ":")
		queued, err := strconv.ParseUint(queue, 16, 64)
		if err != nil {
			return sum, false, err
		}
		dropped, err := strconv.ParseUint(f[12], 10, 64)
		if err != nil {
			return sum, false, err
		}
		sum.queued, sum.dropped, found = sum.queued+queued, sum.dropped+dropped, true
	}
	return sum, found, nil
}

// await polls until ok, or for 30 s.
func await(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("waited 30 s for %s", what))
	defer cancel()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func awaitBound(ctx context.Context, port int) error {
	return await(ctx, "a receiver", func() (bool, error) {
		_, found, err := udpSocket(port)
		return found, err
	})
}

func awaitRead(ctx context.Context, port int) error {
	return await(ctx, "a receiver to read all", func() (bool, error) {
		s, found, err := udpSocket(port)
		return !found || s.queued == 0, err
	})
}
