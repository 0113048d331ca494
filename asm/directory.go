package asm

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// States are those of a checkpoint. EachState visits those of some kinds, kind
// by kind in order of their keys.
type States interface {
	EachState(ctx context.Context, kinds []string, visit func(acct.State) error) error
}

// EachHolder visits all that a user, or anybody where user is "", holds or held,
// as a checkpoint has it: what is of lists, then what is of user sessions, in
// order of their sources, until visit returns an error, which it returns. No more
// than one list is in memory.
func EachHolder(ctx context.Context, s States, user string, visit func(*users.Holder) error) error {
	return s.EachState(ctx, []string{stateUsers, stateClaim}, func(s acct.State) error {
		if s.Kind == stateUsers {
			return users.VisitSource(s.Value, user, visit)
		}
		return users.VisitClaim(s.Value, user, visit)
	})
}

// Directory returns who held an address, as a checkpoint has it, and looks it
// up as the pipeline does. It knows of no other address but those that a NAT
// lets this one stand for.
func Directory(ctx context.Context, s States, a netip.Addr) (*users.Table, error) {
	t := new(users.Table)
	a = a.Unmap().WithZone("")
	addrs := []netip.Addr{a}
	for _, kinds := range [][]string{{stateSettings, statePorts}, {stateUsers, stateClaim}} {
		err := s.EachState(ctx, kinds, func(s acct.State) (err error) {
			switch s.Kind {
			case stateSettings:
				var settings Settings
				if settings, err = ParseSettings(s.Value); err == nil {
					t.Tolerate(settings.UserTolerance.Milliseconds())
				}
			case statePorts:
				var private []netip.Addr
				private, err = t.RestorePortsOf(s.Value, a)
				addrs = append(addrs, private...)
			case stateUsers:
				err = t.RestoreSourceOf(s.Value, addrs)
			case stateClaim:
				err = t.RestoreClaimOf(s.Value, addrs)
			}
			if err != nil {
				return fmt.Errorf("asm: state %s %s: %w", s.Kind, s.Key, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Addresses returns the prefixes that flows of a user have, as a checkpoint has
// what the user holds and held. It returns none where that can't be told: where
// nobody of that name is known to hold any, where records name their users
// themselves, or where a NAT lets other addresses stand for theirs.
func Addresses(ctx context.Context, s States, user string) (list []netip.Prefix, err error) {
	unknown := false
	err = s.EachState(ctx, []string{stateSettings, statePorts}, func(s acct.State) error {
		if s.Kind == statePorts {
			unknown = true
			return nil
		}
		settings, err := ParseSettings(s.Value)
		unknown = unknown || len(settings.InBand) > 0
		return err
	})
	if err != nil || unknown {
		return nil, err
	}
	err = EachHolder(ctx, s, user, func(h *users.Holder) error {
		if !h.Removed() && !slices.Contains(list, h.Prefix()) {
			list = append(list, h.Prefix())
		}
		return nil
	})
	return list, err
}
