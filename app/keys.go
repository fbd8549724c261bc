package app

import (
	"fmt"
	"gatehouse/auth"
	"os"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
)

// keysCommands manage the signing keys.
type keysCommands struct {
	List   keysListCommand   `cmd:"" help:"List the signing keys, newest first."`
	Rotate keysRotateCommand `cmd:"" help:"Sign with a new key, ten seconds after gateways have it. Nobody is signed out."`
}

type keysListCommand struct{ offlineFlags }

func (c *keysListCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	return c.with(p, &invalid, func(service *auth.Service) error {
		keys, err := service.SigningKeys(p.ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tSTATE\tMADE")
		for _, key := range keys {
			state := "verifies what it signed"
			switch {
			case key.Signing:
				state = "signs since " + coarse(-key.SignsIn)
			case key.SignsIn > 0:
				state = "signs in " + coarse(key.SignsIn)
			}
			fmt.Fprintf(table, "%s\t%s\t%s ago\n", key.KID, state, coarse(key.Age))
		}
		return table.Flush()
	})
}

// coarse formats a duration in days or whole seconds.
func coarse(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Second).String()
}

type keysRotateCommand struct {
	Emergency bool `help:"Replace keys that may have leaked: sign with the new key at once, reject everything signed with the old ones, and sign everybody out."`
	Yes       bool `help:"Confirm --emergency."`
	offlineFlags
}

func (c *keysRotateCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	if c.Emergency && !c.Yes {
		invalid.add("--emergency", "it signs everybody out, and nothing undoes that", "give --yes as well")
	}
	return c.with(p, &invalid, func(service *auth.Service) error {
		if c.Emergency {
			kid, err := service.ReplaceKeys(p.ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "%s signs now, and no older key verifies. Every session has ended.\n", kid)
			return nil
		}
		next, err := service.RotateKeys(p.ctx)
		if err != nil {
			return err
		}
		if next.SignsIn <= 0 {
			fmt.Fprintf(p.stdout, "%s signs now.\n", next.KID)
			return nil
		}
		fmt.Fprintf(p.stdout, "%s signs in %s.\n", next.KID, coarse(next.SignsIn))
		return nil
	})
}
