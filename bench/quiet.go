package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	// quietLoad is the load average for each core below which a machine is quiet.
	quietLoad = 0.25
	// quietShare is the share of the machine's CPU that other processes may use.
	quietShare = 0.05
)

// isQuiet reports whether the load average of the last minute is low, or unknown.
func isQuiet() bool {
	last, _, _ := strings.Cut(loadAverage(), " ")
	load, err := strconv.ParseFloat(last, 64)
	return err != nil || load < quietLoad*float64(runtime.NumCPU())
}

// othersIn returns the share of the machine's CPU that went to processes other than
// bench and those that it started.
func othersIn(before, after usage, seconds float64) float64 {
	others := (after.machine - before.machine - (after.ours - before.ours)).Seconds()
	return max(0, others) / seconds / float64(runtime.NumCPU())
}

// noiseLine says how much CPU other processes used, over all turns.
func noiseLine(noise []float64) string {
	if len(noise) == 0 {
		return ""
	}
	most := slices.Max(noise)
	line := fmt.Sprintf("Other processes used %.0f %% of the CPU in the median turn, %.0f %% in the noisiest.",
		math.Round(100*median(noise)), math.Round(100*most))
	if median(noise) > quietShare || most > 4*quietShare {
		line += " WARNING: this was not quiet."
	}
	return line
}
