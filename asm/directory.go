package asm

import (
	"fmt"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// Directory returns who held what, as the state of a checkpoint has it, and
// looks addresses up as the pipeline does.
func Directory(state []acct.State) (*users.Table, error) {
	t := new(users.Table)
	for _, s := range state {
		var err error
		switch s.Kind {
		case stateUsers:
			err = t.RestoreSource(s.Value)
		case stateClaim:
			err = t.RestoreClaim(s.Value)
		case statePorts:
			err = t.RestorePorts(s.Value)
		case stateSettings:
			var settings Settings
			if settings, err = ParseSettings(s.Value); err == nil {
				t.Tolerate(settings.UserTolerance.Milliseconds())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("asm: state %s %s: %w", s.Kind, s.Key, err)
		}
	}
	return t, nil
}
