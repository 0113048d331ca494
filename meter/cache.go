package meter

const (
	chunkBits  = 10
	chunkFlows = 1 << chunkBits
	minSlots   = 2 * chunkFlows
)

// A cache is the flow cache: flows in chunks that never move, found by an
// open-addressing table with linear probing. A slot of the table holds a flow's
// hash and its number plus one, so probing and growing read no flows. Flows
// have the numbers below high; those that went are used again first.
type cache struct {
	chunks []*[chunkFlows]flow
	slots  []uint64 // hash<<32 | number+1; 0 is free
	free   []uint32
	high   uint32
	used   int
}

func newCache() cache { return cache{slots: make([]uint64, minSlots)} }

func (c *cache) at(number uint32) *flow {
	return &c.chunks[number>>chunkBits][number%chunkFlows]
}

// touch reads what find will need of a flow with this hash, so that the
// processor fetches many flows at the same time.
func (c *cache) touch(hash uint32) uint64 {
	slot := c.slots[hash&uint32(len(c.slots)-1)]
	if uint32(slot) == 0 {
		return 0
	}
	f := c.at(uint32(slot) - 1)
	return uint64(f.key[0]) + f.packets
}

// find returns the flow with this key, or nil.
func (c *cache) find(k *key, hash uint32) *flow {
	mask := uint32(len(c.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := c.slots[i]
		if slot == 0 {
			return nil
		}
		if uint32(slot>>32) == hash {
			if f := c.at(uint32(slot) - 1); f.key == *k {
				return f
			}
		}
	}
}

// insert returns a flow for o's key, which is not in the cache, without packets.
func (c *cache) insert(o *observation) *flow {
	if 3*(c.used+1) > 2*len(c.slots) {
		c.grow()
	}
	var number uint32
	if n := len(c.free); n > 0 {
		number, c.free = c.free[n-1], c.free[:n-1]
	} else {
		number = c.high
		c.high++
		if int(number>>chunkBits) == len(c.chunks) {
			c.chunks = append(c.chunks, new([chunkFlows]flow))
		}
	}
	c.put(uint64(o.hash)<<32 | uint64(number+1))
	c.used++
	f := c.at(number)
	f.reset(o)
	return f
}

func (c *cache) put(slot uint64) {
	mask := uint32(len(c.slots) - 1)
	i := uint32(slot>>32) & mask
	for c.slots[i] != 0 {
		i = (i + 1) & mask
	}
	c.slots[i] = slot
}

func (c *cache) grow() {
	old := c.slots
	c.slots = make([]uint64, 2*len(old))
	for _, slot := range old {
		if slot != 0 {
			c.put(slot)
		}
	}
}

// remove frees a flow. The flows after it in its run of slots move up, so that
// probing never has to step over the dead.
func (c *cache) remove(number uint32) {
	f := c.at(number)
	mask := uint32(len(c.slots) - 1)
	i := f.hash & mask
	for uint32(c.slots[i]) != number+1 {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; c.slots[j] != 0; j = (j + 1) & mask {
		// The slot at j may fill the gap at i if its own home is not between them.
		if home := uint32(c.slots[j]>>32) & mask; (j-home)&mask >= (j-i)&mask {
			c.slots[i] = c.slots[j]
			i = j
		}
	}
	c.slots[i] = 0
	*f = flow{}
	c.free = append(c.free, number)
	c.used--
}
