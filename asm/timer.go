package asm

// timers is a heap of sessions by due time and, among equals, by number, so
// that they come due in the same order after a restart. A timer may come due
// early; the session then sets it again.
type timers struct {
	heap []*session
}

// first returns the session that is due first, or nil.
func (t *timers) first() *session {
	if len(t.heap) == 0 {
		return nil
	}
	return t.heap[0]
}

// set makes s due at the given time, Unix milliseconds, or never if it is 0.
func (t *timers) set(s *session, due int64) {
	if due == 0 {
		t.remove(s)
		return
	}
	s.due = due
	if s.index < 0 {
		s.index = len(t.heap)
		t.heap = append(t.heap, s)
	}
	t.fix(s.index)
}

func (t *timers) remove(s *session) {
	s.due = 0
	i := s.index
	if i < 0 {
		return
	}
	last := len(t.heap) - 1
	t.swap(i, last)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	s.index = -1
	if i < last {
		t.fix(i)
	}
}

func (t *timers) less(i, j int) bool {
	a, b := t.heap[i], t.heap[j]
	if a.due != b.due {
		return a.due < b.due
	}
	return a.id < b.id
}

func (t *timers) swap(i, j int) {
	h := t.heap
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// fix moves the session at i to its place.
func (t *timers) fix(i int) {
	for i > 0 && t.less(i, (i-1)/2) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.less(child+1, child) {
			child++
		}
		if !t.less(child, i) {
			return
		}
		t.swap(i, child)
		i = child
	}
}
