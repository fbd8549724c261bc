package app

import (
	"fmt"
	"io"
	"strconv"

	"github.com/alecthomas/kong"
)

// commands is the command line. The services' commands come between serve and schema.
type commands struct {
	Up           upCommand          `cmd:"" default:"withargs" help:"Run everything in one process, on an embedded Postgres unless DATABASE_URL is set. The default."`
	Serve        stackCommand       `cmd:"" help:"Run all services in one process on a given Postgres."`
	kong.Plugins                    // a stackCommand for each service
	Schema       schemaCommands     `cmd:"" help:"Plan, apply and compare the database schema."`
	Admin        adminCommands      `cmd:"" help:"List, create, grant and revoke administrators, reset a lost password, import accounts."`
	Keys         keysCommands       `cmd:"" help:"List and rotate the keys that sign access tokens."`
	Doctor       doctorCommand      `cmd:"" help:"Report what would keep a role from running well, with the fix. Changes nothing."`
	Policy       policyCommand      `cmd:"" help:"Print the access policy, limits and rates of each method."`
	Healthcheck  healthcheckCommand `cmd:"" help:"Check whether a running role is ready: a probe for containers."`
	Status       statusCommand      `cmd:"" help:"Print readiness and the most important values of running processes, read from their operators' listeners."`
	Upstream     upstreamCommands   `cmd:"" help:"Add services of the application behind the gateway, and compare them with their descriptors."`
	Webhook      webhookCommands    `cmd:"" help:"Listen to the events of webhooks, for developers."`
	Psql         psqlCommand        `cmd:"" help:"Open psql on the data of gatehouse up, or on DATABASE_URL."`
	Backup       backupCommand      `cmd:"" help:"Write the data of all services into a file, while they run."`
	Restore      restoreCommand     `cmd:"" help:"Restore a backup into an empty database, or with --replace in place of the data there."`
	Compose      composeCommand     `cmd:"" help:"Print the services of compose.yaml: the schema and a container for each service."`
	Version      versionCommand     `cmd:"" help:"Print the version, the commit and the number of the schema."`

	logFlags
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// newParser returns the command line and its parser.
func newParser(options ...kong.Option) (*commands, *kong.Kong, error) {
	settings := map[string]*settings{
		commandUp: upSettings(), commandServe: newSettings(commandServe, Services()...), commandDoctor: doctorSettings(),
	}
	cli := &commands{
		Up:     upCommand{Plugins: settings[commandUp].flags(), settings: settings[commandUp]},
		Serve:  stackCommand{Plugins: settings[commandServe].flags(), settings: settings[commandServe]},
		Doctor: doctorCommand{Plugins: settings[commandDoctor].flags(), settings: settings[commandDoctor]},
	}
	for _, service := range Services() {
		own := newSettings(service.Name, service)
		settings[service.Name] = own
		cli.Plugins = append(cli.Plugins, wrap(stackCommand{Plugins: own.flags(), settings: own},
			fmt.Sprintf(`cmd:"" name:"%s" help:%s`, service.Name, strconv.Quote(service.Help))))
	}
	cli.Schema.Plan.Logins, cli.Schema.Apply.Logins, cli.Schema.Status.Logins = newServiceLogins(), newServiceLogins(), newServiceLogins()
	cli.Restore.Logins = newServiceLogins()
	parser, err := kong.New(cli, append([]kong.Option{kong.Name("gatehouse")}, options...)...)
	if err != nil {
		return nil, nil, err
	}
	for _, command := range parser.Model.Children {
		if own := settings[command.Name]; own != nil {
			own.setDefaults(command)
		}
	}
	return cli, parser, nil
}

// CommandLine returns the model of the commands and their flags.
func CommandLine() (*kong.Kong, error) {
	_, parser, err := newParser(kong.Writers(io.Discard, io.Discard))
	return parser, err
}
