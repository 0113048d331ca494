package users

import (
	"fmt"
	"sync"
	"time"
	_ "time/tzdata" // the same on every machine that has no newer one
)

var zones sync.Map // *time.Location by name

// LoadZone returns the time zone of an IANA name such as Europe/Berlin. It is
// remembered: zones are few, and all users have one.
func LoadZone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	z, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("%q is no time zone: an IANA name such as Europe/Berlin is expected", name)
	}
	zones.Store(name, z)
	return z, nil
}
