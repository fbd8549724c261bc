package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

const settingsHead = `# Settings

Made by ` + "`make gen`" + ` from the command line.

A setting is an environment variable, and a flag of the commands that read it.
To read a value, such as a secret, from a file, set ` + "`NAME_FILE`" + ` to the file's path instead.
Settings are read and checked once, at the start. All mistakes are reported together, each with its setting and how to fix it, and the exit status is 2.
An unknown variable that begins with ` + "`GATEHOUSE_`" + ` is such a mistake.
The standard ` + "`OTEL_*`" + ` variables, such as ` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + `, configure where traces are sent.

| setting | flag | default | read by | meaning |
| --- | --- | --- | --- | --- |
`

// settingsPage returns the page on settings: a row for each, or several where
// commands differ in its default or meaning.
func settingsPage(app *kong.Application) string {
	type row struct{ name, flag, value, help string }
	readers := map[row][]string{}
	for _, command := range app.Leaves(false) {
		for _, flags := range command.AllFlags(false) {
			for _, flag := range flags {
				for _, name := range flag.Envs {
					one := row{name, flag.Name, flag.Default, flag.Help}
					readers[one] = append(readers[one], "`"+command.Path()+"`")
				}
			}
		}
	}
	var rows []string
	for one, by := range readers {
		rows = append(rows, fmt.Sprintf("| `%s` | `--%s` | %s | %s | %s |\n", one.name, one.flag, code(one.value),
			strings.Join(slices.Compact(slices.Sorted(slices.Values(by))), ", "), inCell(one.help)))
	}
	slices.Sort(rows)
	return settingsHead + strings.Join(rows, "")
}

const commandsHead = `# Commands

Made by ` + "`make gen`" + ` from the command line.

` + "`gatehouse --help`" + ` lists the commands, and ` + "`gatehouse COMMAND --help`" + ` one command's flags.
The exit status is 0 for success, 1 for a failure, and 2 for a mistake in the arguments or settings.
Flags that are also settings are described in [settings.md](settings.md).
`

// commandsPage returns the page on commands, their arguments and the settings that
// each reads.
func commandsPage(app *kong.Application) string {
	var page strings.Builder
	page.WriteString(commandsHead)
	for _, command := range app.Leaves(false) {
		fmt.Fprintf(&page, "\n## gatehouse %s\n\n%s\n", command.Path(), command.Help)
		rows := [][2]string{}
		for _, argument := range command.Positional {
			rows = append(rows, [2]string{argument.Summary(), argument.Help})
		}
		settings := []string{}
		for _, flags := range command.AllFlags(true) {
			for _, flag := range flags {
				switch {
				case len(flag.Envs) > 0:
					settings = append(settings, "`"+flag.Envs[0]+"`")
				case flag.Name != "help" && flag.Name != "version":
					rows = append(rows, [2]string{"--" + flag.Name, flag.Help})
				}
			}
		}
		if len(rows) > 0 {
			page.WriteString("\n| argument | meaning |\n| --- | --- |\n")
			for _, row := range rows {
				fmt.Fprintf(&page, "| `%s` | %s |\n", row[0], inCell(row[1]))
			}
		}
		if len(settings) > 0 {
			slices.Sort(settings)
			fmt.Fprintf(&page, "\nSettings: %s.\n", strings.Join(slices.Compact(settings), ", "))
		}
	}
	return page.String()
}

// code returns a cell with a default value.
func code(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

// inCell escapes text for a table's cell.
func inCell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
