package journal

import (
	"testing"

	"tollbridge/asm/acct"
)

// BenchmarkAppend is the call alone, without a commit.
func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	j := open(b, b.TempDir(), Config{Memory: 1 << 62})
	data := make([]byte, 1400)
	for b.Loop() {
		if _, err := j.Append(acct.EntryMessage, noon.UnixNano(), 1, data); err != nil {
			b.Fatal(err)
		}
		j.mu.Lock()
		j.sealed = j.sealed[:0]
		j.mu.Unlock()
	}
}
