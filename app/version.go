package app

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"gatehouse/internal/release"
	"gatehouse/internal/schema"
)

// commit and commitTime are set by builds outside of version control (-ldflags -X).
var commit, commitTime string

// unknownBuild is what the Dockerfile sets if it is not told the commit or its time.
const unknownBuild = "unknown"

// build says from which source and by which compiler the program was built.
type build struct {
	Version    string         `json:"version"`
	Commit     string         `json:"commit,omitempty"`
	CommitTime string         `json:"commit_time,omitempty"`
	Modified   bool           `json:"modified"` // the source differed from the commit
	Go         string         `json:"go"`
	Platform   string         `json:"platform"`
	Schema     int            `json:"schema"`
	Schemas    map[string]int `json:"schemas"` // by service
}

func thisBuild(schemaSQL string) build {
	b := build{
		Version: release.Version, Commit: commit, CommitTime: commitTime,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Schemas: schemaNumbers(schemaSQL),
	}
	b.Schema, _ = schema.Number(schemaSQL) // a test checks that it has one
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				b.Commit = cmp.Or(b.Commit, setting.Value)
			case "vcs.time":
				b.CommitTime = cmp.Or(b.CommitTime, setting.Value)
			case "vcs.modified":
				b.Modified = setting.Value == "true"
			}
		}
	}
	return b
}

// schemaNumbers returns the number of the schema of each service that has tables.
func schemaNumbers(schemaSQL string) map[string]int {
	numbers := map[string]int{}
	for _, service := range Services() {
		if service.HasTables() {
			numbers[service.Name], _ = schema.Number(service.schemaText(schemaSQL))
		}
	}
	return numbers
}

// shortCommit is enough of a commit's hash to find the commit.
const shortCommit = 12

// name is the version with the commit, such as 1.0.0+0123456789ab.
func (b build) name() string {
	if b.Commit == "" {
		return b.Version
	}
	name := b.Version + "+" + b.Commit[:min(shortCommit, len(b.Commit))]
	if b.Modified {
		name += ".modified"
	}
	return name
}

// line is printed by the command version and by --version.
func (b build) line() string {
	line := "gatehouse " + b.name()
	if b.CommitTime != "" && b.CommitTime != unknownBuild {
		line += " of " + b.CommitTime
	}
	return fmt.Sprintf("%s, schema %d, %s %s", line, b.Schema, b.Go, b.Platform)
}

// versionCommand prints the version.
type versionCommand struct {
	JSON bool `name:"json" help:"Print JSON: version, commit, commit_time, modified, go, platform, schema, schemas."`
}

func (c versionCommand) Run(p *program) error {
	b := thisBuild(p.schema)
	if c.JSON {
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		return out.Encode(b)
	}
	_, err := fmt.Fprintln(p.stdout, b.line())
	return err
}
