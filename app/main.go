// Package app is the program: its commands and settings, and how they build the
// services, join them and serve them.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// schemaSQL is the schema that this program declares. Main sets it, once.
var schemaSQL string

const exitMistake = 2

// program is what every command gets from the surroundings.
type program struct {
	ctx    context.Context // ends with the first interrupt
	stdout io.Writer
	logger *slog.Logger
}

// commands is the command line.
type commands struct {
	Up          upCommand          `cmd:"" default:"withargs" help:"Run everything in one process, on an embedded Postgres unless DATABASE_URL is set. The default."`
	Serve       serveCommand       `cmd:"" help:"Run all three roles in one process on a given Postgres."`
	Auth        authCommand        `cmd:"" help:"Run the auth service."`
	Users       usersCommand       `cmd:"" help:"Run the users service."`
	Bff         bffCommand         `cmd:"" name:"bff" help:"Run the gateway."`
	Schema      schemaCommands     `cmd:"" help:"Make the database be as schema.sql declares it."`
	Admin       adminCommands      `cmd:"" help:"List, create, grant and revoke administrators, reset a lost password, import accounts."`
	Keys        keysCommands       `cmd:"" help:"Look after the keys that sign access tokens."`
	Doctor      doctorCommand      `cmd:"" help:"Say what would keep a role from running well, and how to mend it. Changes nothing."`
	Policy      policyCommand      `cmd:"" help:"Print who may call what."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask a running role whether it is ready: a probe for containers."`
	Psql        psqlCommand        `cmd:"" help:"Open psql on the data of gatehouse up, or on DATABASE_URL."`
	Version     versionCommand     `cmd:"" help:"Print the version."`

	logFlags
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// gcPercent lets the heap grow to three times what is live before it is
// collected. Little is live here, so that collections came often: they took a
// tenth of the gateway's time, for which this gives some 8 MiB.
const gcPercent = 200

// Main runs the command that the process's arguments name, on the schema that
// schema.sql declares, and exits.
func Main(schema string) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	schemaSQL = schema
	os.Exit(run(untilSignal(), os.Args[1:], os.Stdout, os.Stderr))
}

// CommandLine returns the model of the commands and their flags.
func CommandLine() (*kong.Kong, error) {
	return kong.New(new(commands), kong.Name("gatehouse"), kong.Vars{"version": versionLine()}, kong.Writers(io.Discard, io.Discard))
}

// errTerminated is the cause of a stop that an orchestrator asked for, rather
// than a person at a terminal.
var errTerminated = errors.New("terminated")

// untilSignal returns a context that the first interrupt or termination ends. A
// second one ends the process at once.
func untilSignal() context.Context {
	ctx, end := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP) // the terminal was closed
	}
	go func() {
		cause := context.Canceled
		if <-signals == syscall.SIGTERM {
			cause = errTerminated
		}
		signal.Stop(signals)
		end(cause)
	}()
	return ctx
}

// outliveReaders keeps the process alive when the reader of its output goes away,
// as in gatehouse up | head: the writes fail and nothing else does. Not by
// ignoring the signal, which the processes that we start would inherit.
func outliveReaders() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// run runs one command and returns the exit status: 0, 1 for a failure, 2 for a
// mistake in how it was called.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	var status *int
	parser, err := kong.New(&cli,
		kong.Name("gatehouse"),
		kong.Description("The front door for an application: accounts, sessions and users behind one gateway."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { status = &code }),
		kong.Resolvers(fileResolver{}),
		kong.Vars{"version": versionLine()},
		kong.ValueFormatter(helpWithDefault),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "gatehouse:", err)
		return 1
	}
	parsed, err := parser.Parse(args)
	if status != nil { // help was asked for
		return *status
	}
	if err == nil {
		logger := cli.logger(stderr)
		for name, setting := range nearMisses(parser.Model, os.Environ()) {
			logger.Warn("environment variable is no setting: did you mean another?", "name", name, "setting", setting)
		}
		err = parsed.Run(&program{ctx: ctx, stdout: stdout, logger: logger}, parser.Model)
	} else {
		err = mistakes{{fault: err.Error(), mend: "see gatehouse --help"}}
	}
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	fmt.Fprintln(stderr, "gatehouse:", err)
	if _, ok := errors.AsType[mistakes](err); ok {
		return exitMistake
	}
	return 1
}

// version is set by builds that have no version control at hand (-ldflags -X).
var version string

// versionCommand prints what was built.
type versionCommand struct{}

func (versionCommand) Run(p *program) error {
	_, err := fmt.Fprintln(p.stdout, versionLine())
	return err
}

// versionLine is what both the command version and --version print.
func versionLine() string {
	line := "gatehouse " + builtVersion()
	if info, ok := debug.ReadBuildInfo(); ok {
		line += " " + info.GoVersion
	}
	return line
}

func builtVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}
