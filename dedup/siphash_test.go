package dedup

import (
	"bufio"
	"encoding/hex"
	"os"
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

func octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestSipHashReferenceVectors(t *testing.T) {
	if got := referenceKey.Hash().Sum(nil).String(); got != "a3817f04ba25a8e66df67214c7550293" {
		t.Errorf("hash of no octets is %s", got)
	}
	for n, want := range referenceVectors(t) {
		in := octets(n)
		if got := referenceKey.Hash().Sum(in).String(); got != want {
			t.Errorf("hash of %d octets is %s, want %s", n, got, want)
		}
		// The same octets with the first words given apart.
		h := referenceKey.Hash()
		for rest := in; len(rest) >= 8; {
			h, rest = h.Uint64(ParseIdentity(append(rest[:8:8], make([]byte, 8)...)).lo), rest[8:]
			if got := h.Sum(rest).String(); got != want {
				t.Errorf("hash of %d octets, %d of them in words, is %s, want %s", n, n-len(rest), got, want)
			}
		}
	}
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
	record := octets(60)
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
			in := octets(c.n)
			b.ReportAllocs()
			b.SetBytes(int64(c.n))
			for b.Loop() {
				sink = prefix.Sum(in)
			}
		})
	}
}
