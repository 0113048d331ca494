package dedup

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// referenceKey is the key of the reference vectors, 00 01 .. 0f.
var referenceKey = Key{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// referenceVectors returns the hashes of 0, 1, 2 ... octets 00 01 02 ...
func referenceVectors(tb testing.TB) []string {
	tb.Helper()
	f, err := os.Open("testdata/siphash-2-4-128.hex")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var vectors []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); !strings.HasPrefix(line, "#") {
			vectors = append(vectors, line)
		}
	}
	if len(vectors) != 64 {
		tb.Fatalf("%d reference vectors, want 64", len(vectors))
	}
	return vectors
}

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// siphash is SipHash-c-d-128 as its authors describe it.
func siphash(c, d int, key Key, in []byte) Identity {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	v[1] ^= 0xee
	rounds := func(n int) {
		for range n {
			v[0] += v[1]
			v[2] += v[3]
			v[1] = v[1]<<13 | v[1]>>51
			v[3] = v[3]<<16 | v[3]>>48
			v[1] ^= v[0]
			v[3] ^= v[2]
			v[0] = v[0]<<32 | v[0]>>32
			v[2] += v[1]
			v[0] += v[3]
			v[1] = v[1]<<17 | v[1]>>47
			v[3] = v[3]<<21 | v[3]>>43
			v[1] ^= v[2]
			v[3] ^= v[0]
			v[2] = v[2]<<32 | v[2]>>32
		}
	}
	padded := append(slices.Clone(in), make([]byte, 8-len(in)%8)...)
	padded[len(padded)-1] = byte(len(in))
	for ; len(padded) > 0; padded = padded[8:] {
		m := binary.LittleEndian.Uint64(padded)
		v[3] ^= m
		rounds(c)
		v[0] ^= m
	}
	v[2] ^= 0xee
	rounds(d)
	lo := v[0] ^ v[1] ^ v[2] ^ v[3]
	v[1] ^= 0xdd
	rounds(d)
	return Identity{lo, v[0] ^ v[1] ^ v[2] ^ v[3]}
}

// TestSipHashReferenceVectors shows that siphash is SipHash: its authors
// publish vectors of SipHash-2-4-128.
func TestSipHashReferenceVectors(t *testing.T) {
	for n, want := range referenceVectors(t) {
		if got := siphash(2, 4, referenceKey, counting(n)).String(); got != want {
			t.Errorf("hash of %d octets is %s, want %s", n, got, want)
		}
	}
}

func TestSumIsSipHash(t *testing.T) {
	// Stored identities hold for as long as this does not change.
	if got := referenceKey.Hash().Sum(counting(60)).String(); got != "ade83cf7e7f3847b36fa4b54b00dce61" {
		t.Errorf("hash of 60 octets is %s", got)
	}
	for n := range 100 {
		in := counting(n)
		want := siphash(1, 3, referenceKey, in)
		if got := referenceKey.Hash().Sum(in); got != want {
			t.Errorf("hash of %d octets is %s, want %s", n, got, want)
		}
		// The same octets with the first words given apart.
		h := referenceKey.Hash()
		for rest := in; len(rest) >= 8; {
			h, rest = h.Uint64(binary.LittleEndian.Uint64(rest)), rest[8:]
			if got := h.Sum(rest); got != want {
				t.Errorf("hash of %d octets, %d of them in words, is %s, want %s", n, n-len(rest), got, want)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var key Key
		copy(key[:], rapid.SliceOfN(rapid.Byte(), len(key), len(key)).Draw(t, "key"))
		in := rapid.SliceOf(rapid.Byte()).Draw(t, "octets")
		if got, want := key.Hash().Sum(in), siphash(1, 3, key, in); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func TestHashStringIsPaddedWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		rest := rapid.SliceOf(rapid.Byte()).Draw(t, "rest")
		flat := append([]byte{byte(len(s)), byte(len(s) >> 8), 0, 0, 0, 0, 0, 0}, s...)
		for len(flat)%8 != 0 {
			flat = append(flat, 0)
		}
		want := referenceKey.Hash().Sum(append(flat, rest...))
		if got := referenceKey.Hash().String(s).Sum(rest); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func TestHashIsAValue(t *testing.T) {
	prefix := referenceKey.Hash().String("exporter").Uint64(7)
	a := prefix.Sum([]byte("a"))
	prefix.Uint64(8).Sum([]byte("b"))
	if again := prefix.Sum([]byte("a")); again != a {
		t.Errorf("the hash of the same octets is %s, then %s", a, again)
	}
	if b := prefix.Sum([]byte("b")); b == a {
		t.Error("different octets have the same hash")
	}
	if b := (Key{1}).Hash().String("exporter").Uint64(7).Sum([]byte("a")); b == a {
		t.Error("different keys give the same hash")
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	const text = "a3817f04ba25a8e66df67214c7550293"
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := ParseIdentity(b).String(); got != text {
		t.Errorf("got %s, want %s", got, text)
	}
}

func TestSumDoesNotAllocate(t *testing.T) {
	record := counting(60)
	if n := testing.AllocsPerRun(100, func() {
		sink = referenceKey.Hash().String("exporter 1").Uint64(1).Sum(record)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var sink Identity

func BenchmarkSum(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"record of 60 octets", 60}, {"Message of 1400 octets", 1400}} {
		b.Run(c.name, func(b *testing.B) {
			prefix := referenceKey.Hash().String("exporter 1").Uint64(1).Uint64(2)
			in := counting(c.n)
			b.ReportAllocs()
			b.SetBytes(int64(c.n))
			for b.Loop() {
				sink = prefix.Sum(in)
			}
		})
	}
}
