//go:build !race

package sim

// defaultSeeds is how many seeds are simulated where nothing else is asked
// for.
const defaultSeeds = 400
