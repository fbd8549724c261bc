package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"gatehouse/app/doctor"
	"gatehouse/app/status"
)

// statusCommand prints the status of running processes.
type statusCommand struct {
	OpsListen string `env:"GATEHOUSE_OPS_LISTEN" default:"127.0.0.1:9001" placeholder:"ADDRESS,…" help:"Ask the processes whose operators' listeners have these addresses, comma-separated."`
	JSON      bool   `name:"json" help:"Print JSON, whose names do not change between versions."`
}

// statusLimit is how long the processes have to answer.
const statusLimit = 10 * time.Second

func (c *statusCommand) Run(p *program) error {
	var invalid problems
	var addresses []string
	for _, address := range list(c.OpsListen) {
		_, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			invalid.add("GATEHOUSE_OPS_LISTEN", fmt.Sprintf("%q is not an address", address), "set it to hosts and ports, such as 127.0.0.1:9001")
			continue
		}
		addresses = append(addresses, doctor.DialAddress(address))
	}
	if len(addresses) == 0 && len(invalid) == 0 {
		invalid.add("GATEHOUSE_OPS_LISTEN", "it has no address", "set it to hosts and ports, such as 127.0.0.1:9001")
	}
	if err := invalid.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, statusLimit)
	defer cancel()
	now := status.Read(ctx, addresses)
	write := now.WriteText
	if c.JSON {
		write = now.WriteJSON
	}
	if err := write(p.stdout); err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	if !now.Ready {
		return errors.New("not every process is ready")
	}
	return nil
}
