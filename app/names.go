package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// settingNames returns the environment names of every setting of every command.
func settingNames(app *kong.Application) []string {
	var names []string
	_ = kong.Visit(app.Node, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			names = append(names, flag.Envs...)
		}
		return next(nil)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// isSetting reports whether a setting is read from an environment name.
func isSetting(names []string, name string) bool {
	return slices.Contains(names, name) || slices.Contains(names, strings.TrimSuffix(name, "_FILE"))
}

// checkNames reports environment names that begin with GATEHOUSE_ and are not
// settings: a misspelt one would otherwise be ignored silently. It also checks
// the flags that every command has.
func checkNames(p *problems, app *kong.Application, environ []string) {
	checkLog(p, app)
	names := settingNames(app)
	for _, name := range unknownNames(names, environ) {
		fix := "see gatehouse --help, or unset it"
		if near := nearest(names, name); near != "" {
			fix = "did you mean " + near + "? Rename it, or unset it"
		}
		p.add(name, "is not a setting", fix)
	}
}

// unknownNames returns the environment names that begin with GATEHOUSE_ and are not
// settings.
func unknownNames(names, environ []string) []string {
	var unknown []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "GATEHOUSE_") && !strings.HasPrefix(name, "GATEHOUSE_TEST_") && !isSetting(names, name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// nearMisses returns the environment names that are one typing error away from a
// setting without our prefix, such as SMTP_ULR, with that setting. They may
// belong to another program, so they only cause a warning, and none if the setting
// itself is set.
func nearMisses(app *kong.Application, environ []string) map[string]string {
	all := settingNames(app)
	set := map[string]bool{}
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		set[strings.TrimSuffix(name, "_FILE")] = true
	}
	found := map[string]string{}
	for name := range set {
		if strings.HasPrefix(name, "GATEHOUSE_") || isSetting(all, name) {
			continue
		}
		for _, setting := range all {
			if !strings.HasPrefix(setting, "GATEHOUSE_") && !set[setting] && distance(name, setting) == 1 {
				found[name] = setting
			}
		}
	}
	return found
}

// nearest returns the setting that a name with our prefix probably means: the one
// that lacks the prefix, or the only one within a distance of two.
func nearest(names []string, name string) string {
	bare := strings.TrimPrefix(name, "GATEHOUSE_")
	best, shortest, ambiguous := "", 3, false
	for _, setting := range names {
		if setting == bare {
			return setting
		}
		d := min(distance(name, setting), distance(bare, setting))
		if d < shortest {
			best, shortest, ambiguous = setting, d, false
		} else if d == shortest {
			ambiguous = true
		}
	}
	if ambiguous {
		return ""
	}
	return best
}

// distance is the optimal string alignment distance of two names: the number of
// letters deleted, inserted, replaced or swapped with the next one.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// helpWithDefault is a flag's help with its default and its environment name.
func helpWithDefault(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	if !value.HasDefault || value.Default == "" {
		return help
	}
	return fmt.Sprintf("%s Default: %s.", help, value.Default)
}

// programName is the command with which the user started this program.
func programName() string {
	path, err := os.Executable()
	if err != nil {
		return "gatehouse"
	}
	// go run builds into a folder that it removes.
	if strings.Contains(filepath.ToSlash(path), "/go-build") {
		return "go run ."
	}
	if filepath.Base(path) == os.Args[0] {
		return os.Args[0] // found by PATH
	}
	return quoted(os.Args[0])
}
