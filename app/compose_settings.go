package app

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// composeValues are the values of settings in the compose files that are not those of .env,
// or else the setting's default.
var composeValues = map[string]string{
	"GATEHOUSE_INTERNAL_KEY":   variable("GATEHOUSE_INTERNAL_KEY"),
	"GATEHOUSE_SECRET_KEY":     variable("GATEHOUSE_SECRET_KEY"),
	"GATEHOUSE_IDENTITY_KEY":   variable("GATEHOUSE_IDENTITY_KEY"),
	"GATEHOUSE_ADMIN_PASSWORD": variable("GATEHOUSE_ADMIN_PASSWORD"),
	"GATEHOUSE_PUBLIC_URL":     "${GATEHOUSE_PUBLIC_URL:-http://localhost:8001}",
	"GATEHOUSE_APP_NAME":       "${GATEHOUSE_APP_NAME:-Gatehouse}",
	"GATEHOUSE_REGISTRATION":   "${GATEHOUSE_REGISTRATION:-open}",
	"SMTP_URL":                 "${SMTP_URL:-smtp://mailpit:1025?tls=none}",
}

// composeLeftOut are the settings that the compose files do not pass from .env, and why.
var composeLeftOut = map[string]string{
	"GATEHOUSE_LISTEN":         "the files set it to the port that they publish or call",
	"DATABASE_URL":             "the files bring a Postgres of their own",
	"READER_DATABASE_URL":      "the files bring a Postgres of their own",
	"AUTH_READ_DATABASE_URL":   "compose.scale.yaml sets it, the others have no standby",
	"USERS_READ_DATABASE_URL":  "compose.scale.yaml sets it, the others have no standby",
	"ATLAS_DEV_URL":            "the owner of the files' Postgres may create databases",
	"GATEHOUSE_SHARE_DATABASE": "the files bring a Postgres of their own",
	"GATEHOUSE_DRAIN":          "stop_grace_period in the files has to follow it",
	"GATEHOUSE_STOP_LIMIT":     "stop_grace_period in the files has to follow it",
	"GATEHOUSE_THROTTLE":       "off is for tests and measurements only",
}

// composeTraces are the variables of OpenTelemetry that the compose files pass. An empty one
// is the same as none.
var composeTraces = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"}

// ComposeLeftOut returns why the compose files do not pass a setting from .env; "" for a
// setting that they pass.
func ComposeLeftOut(setting string) string {
	for _, service := range Services() {
		if setting == loginSetting(service.Name) || setting == (&peerFlags{service: service.Name}).name() {
			return "the files set it to the containers that they start"
		}
	}
	return composeLeftOut[setting]
}

// composed is a setting in the compose files.
type composed struct {
	name, value string
	// file says that the value is the path of a file or folder.
	file bool
}

// composedSettings are the settings that the services read from .env, when one process
// runs them.
func composedSettings(services ...Definition) []composed {
	var found []composed
	flags := []any{&logFlags{}}
	for _, g := range newSettings("", services...).groups {
		flags = append(flags, g)
	}
	for _, some := range flags {
		fields := reflect.TypeOf(some).Elem()
		for i := range fields.NumField() {
			tag := fields.Field(i).Tag
			name := tag.Get("env")
			if name == "" || ComposeLeftOut(name) != "" {
				continue
			}
			value, special := composeValues[name]
			switch standard := tag.Get("default"); {
			case special:
			case standard != "":
				value = fmt.Sprintf("${%s:-%s}", name, standard)
			default:
				value = "${" + name + "}"
			}
			found = append(found, composed{name, value, slices.Contains([]string{"FILE", "FOLDER"}, tag.Get("placeholder"))})
		}
	}
	for _, name := range composeTraces {
		found = append(found, composed{name: name, value: "${" + name + "}"})
	}
	return found
}

// writeSettings writes the settings that the services read from .env.
func (f composeForm) writeSettings(b *strings.Builder, services ...Definition) {
	for _, setting := range composedSettings(services...) {
		if value, ok := f.values[setting.name]; ok {
			setting.value = value
		}
		fmt.Fprintf(b, "      %s: %s\n", setting.name, setting.value)
	}
}

// composeFiles is the folder whose folders the services' containers mount, each that of its
// own name, and the one process all of them.
const composeFiles = "./deploy/compose/files"

// readsFiles reports whether a setting of the service names a file.
func (d Definition) readsFiles() bool {
	return slices.ContainsFunc(composedSettings(d), func(s composed) bool { return s.file })
}
