package app

import (
	"time"
)

// deviceFlags are the rules for remembered devices.
type deviceFlags struct {
	RememberDevice string `env:"GATEHOUSE_REMEMBER_DEVICE" default:"30d" placeholder:"TIME" help:"Skip the second factor for this time on a device that its owner asked to remember; 0 remembers none."`

	rememberDevice time.Duration
}

func (f *deviceFlags) check(c *checks) {
	if f.RememberDevice != "0" {
		f.rememberDevice = parseDuration(c.problems, "GATEHOUSE_REMEMBER_DEVICE", f.RememberDevice)
	}
}
