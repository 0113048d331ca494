package collect

import "time"

// counting is a Journal that keeps nothing.
type counting struct{}

func (counting) Open(time.Time, Session) (uint64, error)           { return 1, nil }
func (counting) Message(time.Time, uint64, []byte) (uint64, error) { return 1, nil }
func (counting) Close(time.Time, uint64) error                     { return nil }
