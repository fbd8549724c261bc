package app

import (
	"github.com/alecthomas/kong"
)

// stackCommand runs all services in one process, or one service alone.
type stackCommand struct {
	kong.Plugins
	settings *settings
}

func (c *stackCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	c.settings.check(&invalid, app)
	if err := invalid.err(); err != nil {
		return err
	}
	stack, err := newStack(p.ctx, &Stack{settings: c.settings, logger: p.logger, schema: p.schema})
	if err != nil {
		return err
	}
	defer stack.Close()
	return stack.Serve(p.ctx, func() {
		attributes := []any{"listen", find[*listenFlags](c.settings).Listen}
		if c.settings.command == commandServe {
			attributes = append([]any{"url", find[*publicFlags](c.settings).url}, attributes...)
		}
		p.logger.Info("ready", attributes...)
	})
}
