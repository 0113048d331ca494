package radius

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Client is a NAS or proxy that may send Accounting-Requests.
type Client struct {
	Name     string         // what its NAS are known by, with what they call themselves; without "/"
	Prefixes []netip.Prefix // it sends from; the longest of all clients' that holds the address counts
	Secret   []byte         // shared with it

	// Whether a request must have a Message-Authenticator (RFC 2869, Section
	// 5.14). One that is there is checked in any case.
	RequireMessageAuthenticator bool
}

// A client is a Client with what the server remembers of it. All but Client
// belongs to Server.mu.
type client struct {
	Client
	stats   ClientStats
	seen    window
	waiting int // requests whose event is not durable yet
	told    map[Cause]bool
}

// A directory finds clients by address.
type directory struct {
	clients []*client
	prefix  map[netip.Prefix]*client
	bits    []int // lengths of prefixes, the longest first
}

func newDirectory(clients []Client) (*directory, error) {
	d := &directory{prefix: map[netip.Prefix]*client{}}
	for _, c := range clients {
		switch {
		case c.Name == "" || strings.Contains(c.Name, "/"):
			return nil, fmt.Errorf("radius: client %q: a name without / is required", c.Name)
		case len(c.Secret) == 0:
			return nil, fmt.Errorf("radius: client %s has no secret", c.Name)
		}
		own := &client{Client: c, told: map[Cause]bool{}}
		d.clients = append(d.clients, own)
		for _, p := range c.Prefixes {
			if other, taken := d.prefix[p.Masked()]; taken {
				return nil, fmt.Errorf("radius: client %s: %s belongs to client %s", c.Name, p, other.Name)
			}
			d.prefix[p.Masked()] = own
			if !slices.Contains(d.bits, p.Bits()) {
				d.bits = append(d.bits, p.Bits())
			}
		}
	}
	slices.SortFunc(d.bits, func(a, b int) int { return cmp.Compare(b, a) })
	return d, nil
}

// find returns the client that sends from an address, nil if there is none.
func (d *directory) find(a netip.Addr) *client {
	for _, bits := range d.bits {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // an IPv6 length for an IPv4 address
		}
		if c := d.prefix[p]; c != nil {
			return c
		}
	}
	return nil
}
