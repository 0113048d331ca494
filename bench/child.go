package main

import "context"

// children are the parts that are measured, or measured against, in a process
// of their own: this program with the name as its first argument.
var children = map[string]func(ctx context.Context, args []string) error{
	"collect":    collectChild,
	"deliver":    deliverChild,
	"export":     exportChild,
	"receive":    receiveChild,
	"godiameter": godiameterChild,
}
