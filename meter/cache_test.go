package meter

import (
	"encoding/binary"
	"testing"

	"tollbridge/meter/pcap"

	"pgregory.net/rapid"
)

// TestCache compares the cache to a map, with hashes that collide much and runs
// of slots that wrap around the table's end.
func TestCache(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCache()
		model := map[key]uint64{}
		hash := func(n int) uint32 { return uint32(minSlots - 4 + n%7) }
		keyOf := func(n int) (k key) {
			binary.BigEndian.PutUint32(k[:], uint32(n))
			return k
		}
		for step := range rapid.IntRange(1, 300).Draw(t, "steps") {
			n := rapid.IntRange(0, 40).Draw(t, "flow")
			o := observation{key: keyOf(n), hash: hash(n), at: int64(step), octets: 1}
			f := c.find(&o.key, o.hash)
			if (f != nil) != (model[o.key] > 0) {
				t.Fatalf("flow %d: found %v, the model has %d packets", n, f, model[o.key])
			}
			switch {
			case f == nil:
				f = c.insert(&o)
				fallthrough
			case rapid.Bool().Draw(t, "packet"):
				f.add(&o)
				model[o.key]++
			default:
				c.remove(numberOf(t, &c, f))
				delete(model, o.key)
			}
		}
		if c.used != len(model) {
			t.Errorf("%d flows in use, want %d", c.used, len(model))
		}
		for n := range 41 {
			k := keyOf(n)
			var packets uint64
			if f := c.find(&k, hash(n)); f != nil {
				packets = f.packets
			}
			if packets != model[k] {
				t.Errorf("flow %d: %d packets, want %d", n, packets, model[k])
			}
		}
	})
}

func numberOf(t *rapid.T, c *cache, f *flow) uint32 {
	for number := range c.high {
		if c.at(number) == f {
			return number
		}
	}
	t.Fatal("flow without a number")
	return 0
}

// TestSweepInTime fills the cache, makes it grow, and sees the sweep find every
// flow within a fourth of the shortest timeout.
func TestSweepInTime(t *testing.T) {
	const flows, second = 20_000, int64(1e9)
	m, err := New(Config{Exporter: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	p := Packet{Time: 1000 * second, Link: pcap.LinkRaw, Data: unhex(t, udp4+udp)}
	for i := range flows {
		p.Interface = uint32(i)
		if err := m.Packets(t.Context(), []Packet{p}); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); s.Flows != flows {
		t.Fatalf("%d flows, want %d", s.Flows, flows)
	}
	for now := 1000 * second; now < 1015*second; now += second / 100 {
		if err := m.Advance(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); s.Flows != flows {
		t.Fatalf("%d flows before the idle timeout, want %d", s.Flows, flows)
	}
	for now := 1015 * second; now <= 1015*second+second/4; now += second / 100 {
		if err := m.Advance(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); s.Flows != 0 || s.Exported.IdleTimeout != flows {
		t.Errorf("a fourth of the shortest timeout later: %+v", s)
	}
}
