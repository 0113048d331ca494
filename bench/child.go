package main

import (
	"context"
	"runtime/debug"
)

// children are the parts that are measured, or measured against, in a process
// of their own: this program with the name as its first argument.
var children = map[string]func(ctx context.Context, args []string) error{
	"collect":    collectChild,
	"deliver":    deliverChild,
	"export":     exportChild,
	"receive":    receiveChild,
	"godiameter": godiameterChild,
}

// collectAsServe has garbage collected as often as "tollbridge serve" does, of
// which a child is a part.
func collectAsServe() { debug.SetGCPercent(200) }
