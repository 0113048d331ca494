//go:build race

package sim

// defaultSeeds is how many seeds are simulated where nothing else is asked
// for. The race detector makes each eight times slower, and a simulator without
// goroutines gives it little to find.
const defaultSeeds = 50
