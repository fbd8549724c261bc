package app

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "gatehouse/gen/policy/v1"
)

var update = flag.Bool("update", false, "write the generated pages of docs/reference")

// The pages on settings and commands say what the command line itself does, and
// the one on the services' own methods what their protos say.
func TestTheReferencePagesAreCurrent(t *testing.T) {
	t.Parallel()
	parser, err := CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	for path, page := range map[string]string{
		"docs/reference/settings.md": settingsPage(parser.Model),
		"docs/reference/commands.md": commandsPage(parser.Model),
		"docs/reference/internal.md": internalPage(t),
	} {
		if *update {
			if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		committed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(committed, []byte(page)) {
			t.Errorf("%s is not what its source says. Renew it: go test ./app -run %s -update\nwant:\n%s", path, t.Name(), page)
		}
	}
}

const settingsHead = `# Settings

Made from the command line's own description; a test compares this page with it.

A setting is an environment variable, and a flag of the commands that read it.
A secret can come from a file instead: ` + "`NAME_FILE`" + ` names one whose content is the value.
They are read once, at the start, and checked together: every problem is reported at once, with the setting and the fix, and the exit status is 2.
A variable that begins with ` + "`GATEHOUSE_`" + ` and is none of these stops the start.
The standard ` + "`OTEL_*`" + ` variables, such as ` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + `, say where traces go.

| setting | flag | default | read by | meaning |
| --- | --- | --- | --- | --- |
`

// settingsPage has a row for each setting, or several where commands differ.
func settingsPage(app *kong.Application) string {
	type row struct{ name, flag, standard, help string }
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
		rows = append(rows, fmt.Sprintf("| `%s` | `--%s` | %s | %s | %s |\n", one.name, one.flag, code(one.standard),
			strings.Join(slices.Compact(slices.Sorted(slices.Values(by))), ", "), inCell(one.help)))
	}
	slices.Sort(rows)
	return settingsHead + strings.Join(rows, "")
}

const commandsHead = `# Commands

Made from the command line's own description; a test compares this page with it.

` + "`gatehouse --help`" + ` prints the same, and ` + "`gatehouse COMMAND --help`" + ` one command's flags.
The exit status is 0, 1 for a failure, and 2 for an invalid command line or invalid settings.
Flags that are settings too are in [settings.md](settings.md).
`

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

const internalHead = `# Methods between the services

Made from ` + "`proto/auth/v1` and `proto/users/v1`" + `; a test compares this page with them.

These are called by other services alone, with a signed token that says which one calls; nobody outside reaches them.
What people and programs call is in [methods.md](methods.md).
`

var (
	protoComment = regexp.MustCompile(`^// ?(.*)$`)
	protoService = regexp.MustCompile(`^service (\w+) \{`)
	protoMethod  = regexp.MustCompile(`^\s*rpc (\w+)\(`)
)

// internalPage lists the methods that services call, with their comments and
// callers.
func internalPage(t *testing.T) string {
	t.Helper()
	var page strings.Builder
	page.WriteString(internalHead)
	for _, definition := range Services() {
		if definition.probe == nil { // no service calls it
			continue
		}
		service := definition.Name
		files, err := filepath.Glob("proto/" + service + "/v1/*.proto")
		if err != nil || len(files) == 0 {
			t.Fatalf("look for the protos of %s: %d found: %v", service, len(files), err)
		}
		for _, file := range files {
			var inService string
			var comment []string
			for line := range strings.Lines(read(t, file)) {
				if said := protoComment.FindStringSubmatch(strings.TrimSpace(line)); said != nil {
					comment = append(comment, said[1])
					continue
				}
				about := strings.TrimSpace(strings.Join(comment, " "))
				comment = nil
				if found := protoService.FindStringSubmatch(line); found != nil {
					inService = service + ".v1." + found[1]
					fmt.Fprintf(&page, "\n## %s\n\n%s\n\n| method | who may call | what it does |\n| --- | --- | --- |\n", inService, about)
				}
				if found := protoMethod.FindStringSubmatch(line); found != nil {
					if about == "" {
						t.Errorf("%s: %s has no comment that says what it does", file, found[1])
					}
					fmt.Fprintf(&page, "| `%s` | %s | %s |\n", found[1], strings.Join(callersOf(t, inService+"."+found[1]), ", "), inCell(about))
				}
			}
		}
	}
	return page.String()
}

// callersOf returns the services that a method's policy lets call.
func callersOf(t *testing.T, method string) []string {
	t.Helper()
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(method))
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	policy, ok := proto.GetExtension(found.Options(), policyv1.E_Method).(*policyv1.Method)
	if !ok || len(policy.GetAccess().GetServices().GetAnyOf()) == 0 {
		t.Errorf("%s names no service that may call it", method)
	}
	return policy.GetAccess().GetServices().GetAnyOf()
}

func code(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

// inCell is text that doesn't end a table's cell.
func inCell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
