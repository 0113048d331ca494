// Package memory is how tables that are larger than the processor's caches, and
// read at random all over, lie in memory. It changes how long something takes
// and nothing else.
package memory
