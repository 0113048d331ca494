package sampling

import "testing"

func TestScale(t *testing.T) {
	for _, c := range []struct {
		v, num, den, want uint64
	}{
		{3, 5, 2, 8}, {1, 1, 1, 1}, {0, 1000, 1, 0}, {7, 10, 3, 23}, {1 << 63, 4, 2, 1<<64 - 1}, {1 << 63, 4, 1, 1<<64 - 1}, {1<<64 - 1, 3, 3, 1<<64 - 1}, {5, 0, 0, 5},
	} {
		if got := (Rate{c.num, c.den}).Scale(c.v); got != c.want {
			t.Errorf("%d of %d for %d: %d, want %d", c.v, c.num, c.den, got, c.want)
		}
	}
}
