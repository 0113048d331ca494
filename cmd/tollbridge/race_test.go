//go:build race

package main

// raceFlags build the command as these tests were built.
var raceFlags = []string{"-race"}
