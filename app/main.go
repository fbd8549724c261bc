// Package app is the composition root: the commands and their settings, the list
// of services ([Services]), and the wiring that builds, joins and serves them
// ([Stack]).
//
// This package is large because it holds every command, every setting with the check
// of its value, and the wiring of all services. A setting is declared once, with its
// check and its help text, and every command that needs it embeds it.
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

// exitUsage is the exit status for a command line or settings that are invalid.
const exitUsage = 2

// program is the environment of every command.
type program struct {
	ctx    context.Context // ends with the first interrupt
	schema string          // text of schema.sql
	stdout io.Writer
	logger *slog.Logger
	names  []string // of all settings in the environment
}

// gcPercent lets the heap grow to three times the live data before a collection.
// There is little live data, so the default collects too often. This saves a tenth of
// the gateway's CPU time and costs some 8 MiB of memory.
const gcPercent = 200

// Main runs the command of the process's arguments and exits. schema is the text
// of schema.sql.
func Main(schema string) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	p := &program{ctx: untilSignal(), schema: schema, stdout: os.Stdout}
	os.Exit(run(p, os.Args[1:], os.Stderr))
}

// errTerminated is the cause of a stop by SIGTERM, which comes from an
// orchestrator rather than from a person at a terminal.
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

// ignoreBrokenPipes keeps the process alive when the reader of its output exits,
// as in gatehouse up | head: only the writes fail. It doesn't ignore the signal,
// since processes that we start would inherit that.
func ignoreBrokenPipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// run runs one command and returns the exit status: 0, 1 for a failure, 2 for an
// invalid command line or invalid settings.
func run(p *program, args []string, stderr io.Writer) int {
	var status *int
	cli, parser, err := newParser(
		kong.Description("The front door for an application: accounts, sessions and users behind one gateway."),
		kong.Writers(p.stdout, stderr),
		kong.Exit(func(code int) { status = &code }),
		kong.Resolvers(fileResolver{}),
		kong.Vars{"version": thisBuild(p.schema).line()},
		kong.ValueFormatter(helpWithDefault),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "gatehouse:", err)
		return 1
	}
	parsed, err := parser.Parse(args)
	if status != nil { // --help or --version
		return *status
	}
	if err == nil {
		p.logger = cli.logger(stderr)
		for name, setting := range nearMisses(parser.Model, os.Environ()) {
			p.logger.Warn("unknown environment variable, similar to a setting", "name", name, "setting", setting)
		}
		p.names = settingNames(parser.Model)
		ignoreNewerSettings(p, parsed.Selected())
		err = parsed.Run(p, parser.Model)
	} else {
		err = problems{{text: err.Error(), fix: "see gatehouse --help"}}
	}
	if err == nil || errors.Is(err, context.Canceled) && p.ctx.Err() != nil {
		return 0
	}
	fmt.Fprintln(stderr, "gatehouse:", err)
	if _, ok := errors.AsType[problems](err); ok {
		return exitUsage
	}
	return 1
}
