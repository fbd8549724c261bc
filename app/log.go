package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"gatehouse/internal/jsonlog"
)

// logFlags set the level and the format of the log. Every command has them.
type logFlags struct {
	LogLevel  string `env:"GATEHOUSE_LOG_LEVEL" default:"info" placeholder:"debug|info|warn|error" help:"Log lines of this level and above."`
	LogFormat string `env:"GATEHOUSE_LOG_FORMAT" default:"auto" placeholder:"auto|json|text" help:"Write log lines as JSON or as text; auto writes text to a terminal and JSON elsewhere."`
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// checkLog reports unknown values of logFlags.
func checkLog(p *problems, app *kong.Application) {
	for _, flag := range app.Flags {
		value := flag.Target.String()
		switch _, ok := logLevels[value]; {
		case flag.Name == "log-level" && !ok:
			p.add("GATEHOUSE_LOG_LEVEL", fmt.Sprintf("%q is not known", value), "set it to debug, info, warn or error")
		case flag.Name == "log-format" && !slices.Contains([]string{"auto", "json", "text"}, value):
			p.add("GATEHOUSE_LOG_FORMAT", fmt.Sprintf("%q is not known", value), "set it to auto, json or text")
		}
	}
}

// logger returns a logger that writes to out. An unknown value counts as the
// default; checkLog reports it later.
func (f logFlags) logger(out io.Writer) *slog.Logger {
	level := logLevels[f.LogLevel] // info is the zero value
	file, isFile := out.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	if f.LogFormat == "text" || terminal && f.LogFormat != "json" {
		return slog.New(tint.NewTextHandler(out, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !terminal}))
	}
	return slog.New(jsonlog.New(out, level))
}
