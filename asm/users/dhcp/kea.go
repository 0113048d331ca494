package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A keaFile reads the CSV files of Kea's memfile backend, of DHCPv4 and DHCPv6:
// each line is a lease as it became, later ones replace earlier ones.
type keaFile struct {
	columns map[string]int // by name; nil before the header
	fields  int
}

// keaRequired are the columns that make a lease.
var keaRequired = []string{"address", "valid_lifetime", "expire", "state"}

// parse reads the whole lines of b, and returns how many octets they have.
func (k *keaFile) parse(b []byte, lease func(Lease), bad func(error)) (consumed int) {
	for {
		end := bytes.IndexByte(b[consumed:], '\n')
		if end < 0 {
			return consumed
		}
		line := strings.TrimRight(string(b[consumed:consumed+end]), "\r")
		consumed += end + 1
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.HasPrefix(line, "address,") {
			if err := k.header(line); err != nil {
				bad(err)
			}
			continue
		}
		if k.columns == nil {
			bad(errors.New("a line comes before the one that names the columns"))
			continue
		}
		l, err := k.lease(line)
		if err != nil {
			bad(err)
			continue
		}
		lease(l)
	}
}

func (k *keaFile) header(line string) error {
	names := strings.Split(line, ",")
	k.columns, k.fields = map[string]int{}, len(names)
	for i, n := range names {
		k.columns[n] = i
	}
	for _, n := range keaRequired {
		if _, ok := k.columns[n]; !ok {
			k.columns = nil
			return fmt.Errorf("column %s is missing", n)
		}
	}
	return nil
}

// Lease states of Kea.
const (
	keaAssigned  = 0
	keaReclaimed = 2
)

// forever is a lease time without end (RFC 2131, Section 3.3).
const forever = 0xffffffff

// leaseTypePD is Kea's number of a delegated prefix.
const leaseTypePD = "2"

// lease reads one line.
func (k *keaFile) lease(line string) (Lease, error) {
	fields := strings.Split(line, ",")
	if len(fields) != k.fields {
		return Lease{}, fmt.Errorf("it has %d fields, not %d as its first line", len(fields), k.fields)
	}
	field := func(name string) string {
		if i, ok := k.columns[name]; ok {
			return unescape(fields[i])
		}
		return ""
	}
	a, err := netip.ParseAddr(field("address"))
	if err != nil {
		return Lease{}, fmt.Errorf("address: %w", err)
	}
	bits := a.BitLen()
	if field("lease_type") == leaseTypePD {
		if bits, err = strconv.Atoi(field("prefix_len")); err != nil {
			return Lease{}, fmt.Errorf("prefix_len: %w", err)
		}
	}
	l := Lease{HWAddress: strings.ToLower(field("hwaddr")), Hostname: field("hostname")}
	if l.Prefix, err = a.Prefix(bits); err != nil {
		return Lease{}, fmt.Errorf("prefix_len: %w", err)
	}
	var numbers [3]uint64
	for i, name := range [...]string{"valid_lifetime", "expire", "state"} {
		if numbers[i], err = strconv.ParseUint(field(name), 10, 40); err != nil {
			return Lease{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	valid, expire, state := numbers[0], int64(numbers[1]), numbers[2]
	if l.ClientID, err = octets(field("client_id")); err != nil {
		return Lease{}, fmt.Errorf("client_id: %w", err)
	}
	if l.DUID, err = octets(field("duid")); err != nil {
		return Lease{}, fmt.Errorf("duid: %w", err)
	}
	if iaid := field("iaid"); iaid != "" {
		n, err := strconv.ParseUint(iaid, 10, 32)
		if err != nil {
			return Lease{}, fmt.Errorf("iaid: %w", err)
		}
		l.IAID = uint32(n)
	}
	l.relay(field("user_context"))
	l.Start = time.Unix(expire-int64(valid), 0).UTC()
	// A lease that was released is written once more, with no lifetime.
	l.Active = state == keaAssigned && valid > 0
	if l.Active && valid != forever || state == keaReclaimed && valid > 0 {
		l.End = time.Unix(expire, 0).UTC()
	}
	return l, nil
}

// unescape undoes what Kea does to commas and control characters: &#x2c.
func unescape(s string) string {
	const escape = "&#x"
	if !strings.Contains(s, escape) {
		return s
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, escape)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = after
		if len(s) >= 2 {
			if o, err := hex.DecodeString(s[:2]); err == nil {
				b.WriteByte(o[0])
				s = s[2:]
				continue
			}
		}
		b.WriteString(escape)
	}
}

// Options of relays (RFC 3046, Section 2; RFC 8415, Section 21.18; RFC 4649).
const (
	subOptionCircuitID = 1
	subOptionRemoteID  = 2
	optionInterfaceID  = 18
	optionRemoteID     = 37
)

// relay reads what relays said from a lease's user context, where Kea keeps it
// with store-extended-info. Anything else there is not ours.
func (l *Lease) relay(context string) {
	if context == "" {
		return
	}
	var c struct {
		ISC struct {
			Agent  json.RawMessage `json:"relay-agent-info"`
			Relays []keaRelay      `json:"relays"`     // up to Kea 2.2
			Info   []keaRelay      `json:"relay-info"` // since
		}
	}
	if json.Unmarshal([]byte(context), &c) != nil {
		return
	}
	var agent struct {
		Options string `json:"sub-options"` // since Kea 2.4
	}
	if json.Unmarshal(c.ISC.Agent, &agent.Options) != nil && json.Unmarshal(c.ISC.Agent, &agent) != nil {
		agent.Options = ""
	}
	for b := hexadecimal(agent.Options); len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		l.relayed(b[0] == subOptionCircuitID, b[0] == subOptionRemoteID, b[2:2+int(b[1])])
	}
	// The last is the relay next to the client.
	for _, r := range slices.Concat(c.ISC.Relays, c.ISC.Info) {
		for b := hexadecimal(r.Options); len(b) >= 4; {
			code, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
			if len(b) < 4+length {
				break
			}
			value := b[4 : 4+length]
			if code == optionRemoteID && length > 4 {
				value = value[4:] // after the enterprise number
			}
			l.relayed(code == optionInterfaceID, code == optionRemoteID, value)
			b = b[4+length:]
		}
	}
}

// A keaRelay is one that a DHCPv6 message came through.
type keaRelay struct {
	Options string `json:"options"`
}

func (l *Lease) relayed(circuit, remote bool, value []byte) {
	switch {
	case circuit:
		l.CircuitID = string(value)
	case remote:
		l.RemoteID = string(value)
	}
}

// hexadecimal reads 0x01ab; what it can't read is nothing.
func hexadecimal(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil
	}
	return b
}
