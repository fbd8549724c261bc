package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// A setting is a field of a group: its name, flag, default and help are the
// field's tags, its check is the group's check method. A command reads several
// groups. Each group is text until it is checked, so every problem is
// reported at once.

// group is a pointer to a struct of settings that belong together.
type group interface {
	// check reports the problems of the settings, and keeps their values.
	check(c *checks)
}

// checks is one check of all settings of a command.
type checks struct {
	*problems
	settings *settings
}

// settings are the groups of one command, each once, in the order of their
// checks.
type settings struct {
	// command is up, serve or the name of a service.
	command  string
	services []Definition // those that run in the process
	groups   []group
	logins   map[string]*loginFlags // by service
	peers    map[string]*peerFlags  // by service
	// defaults are those that differ from the fields' tags, by flag.
	defaults map[string]string
}

const (
	commandUp    = "up"
	commandServe = "serve"
)

// newSettings returns the settings of a command that runs the services in one
// process.
func newSettings(command string, services ...Definition) *settings {
	s := &settings{
		command: command, services: services, logins: map[string]*loginFlags{}, peers: map[string]*peerFlags{}, defaults: map[string]string{},
	}
	here := map[string]bool{}
	for _, service := range services {
		here[service.Name] = true
	}
	front := services[len(services)-1]
	s.defaults["listen"] = front.Listen
	s.add(&listenFlags{})
	if len(services) > 1 {
		s.add(&databaseFlags{})
	}
	for _, service := range services {
		if service.HasTables() {
			s.logins[service.Name] = &loginFlags{service: service.Name}
		}
		for _, call := range service.AllCalls() {
			if !here[call.Service] {
				s.peers[call.Service] = &peerFlags{service: call.Service}
			}
		}
	}
	s.add(&internalFlags{})
	for _, service := range services {
		if service.settings != nil {
			s.add(service.settings()...)
		}
	}
	s.add(&stopFlags{}, &opsFlags{})
	return s
}

// add adds the groups of types that aren't there yet.
func (s *settings) add(groups ...group) {
	for _, g := range groups {
		same := func(other group) bool { return reflect.TypeOf(other) == reflect.TypeOf(g) }
		if !slices.ContainsFunc(s.groups, same) {
			s.groups = append(s.groups, g)
		}
	}
}

// find returns the group of that type; nil if the command doesn't read it.
func find[T group](s *settings) T {
	for _, g := range s.groups {
		if found, ok := g.(T); ok {
			return found
		}
	}
	var none T
	return none
}

// flags are the settings as kong embeds them into a command.
func (s *settings) flags() kong.Plugins {
	var plugins kong.Plugins
	for _, g := range s.groups {
		plugins = append(plugins, g)
	}
	for _, service := range Services() {
		if login := s.logins[service.Name]; login != nil {
			plugins = append(plugins, named(service.Name, login))
		}
		if peer := s.peers[service.Name]; peer != nil {
			plugins = append(plugins, named(service.Name, peer))
		}
	}
	return plugins
}

// named returns a struct that embeds the flags with a service's name before
// their own: --auth-url and AUTH_URL.
func named(service string, flags any) any {
	tag := fmt.Sprintf(`embed:"" prefix:"%s-" envprefix:"%s_" set:"service=%s"`, service, strings.ToUpper(service), service)
	return wrap(flags, tag)
}

// wrap returns a pointer to a struct whose only field holds the value and has
// that tag.
func wrap[T any](value T, tag string) any {
	outer := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Value", Type: reflect.TypeFor[T](), Tag: reflect.StructTag(tag)}}))
	outer.Elem().Field(0).Set(reflect.ValueOf(value))
	return outer.Interface()
}

// check checks all settings of a command and the names of the environment.
func (s *settings) check(p *problems, app *kong.Application) {
	checkNames(p, app, os.Environ())
	s.checkValues(p)
}

// checkValues checks all settings.
func (s *settings) checkValues(p *problems) {
	c := &checks{problems: p, settings: s}
	for _, service := range s.services {
		if login := s.logins[service.Name]; login != nil {
			checkDatabaseURL(p, login.name(), login.URL, s.command == service.Name)
		}
		for _, call := range service.AllCalls() {
			if peer := s.peers[call.Service]; peer != nil && !(call.optional && peer.URL == "") {
				checkPeer(p, peer.name(), peer.URL)
			}
		}
	}
	for _, g := range s.groups {
		g.check(c)
	}
}

// only returns own, the settings of one command, with the values that s, those of
// several, were given. They share their groups.
func (s *settings) only(own *settings) *settings {
	for i, g := range own.groups {
		for _, given := range s.groups {
			if reflect.TypeOf(given) == reflect.TypeOf(g) {
				own.groups[i] = given
			}
		}
	}
	for name := range own.logins {
		own.logins[name] = s.logins[name]
	}
	for name := range own.peers {
		own.peers[name] = s.peers[name]
	}
	return own
}

// setDefaults gives the flags of a command the defaults that differ from their
// tags.
func (s *settings) setDefaults(command *kong.Node) {
	for _, flag := range command.Flags {
		if value, ok := s.defaults[flag.Name]; ok {
			flag.Default, flag.HasDefault = value, value != ""
		}
	}
}

// problem is a problem of one setting, and its fix.
type problem struct{ setting, text, fix string }

// problems are all problems of the settings.
type problems []problem

func (p problems) Error() string {
	var text strings.Builder
	text.WriteString("invalid settings:")
	for _, one := range p {
		text.WriteString("\n  ")
		if one.setting != "" {
			text.WriteString(one.setting + ": ")
		}
		text.WriteString(one.text)
		if one.fix != "" {
			text.WriteString(": " + one.fix)
		}
	}
	return text.String()
}

func (p *problems) add(setting, text, fix string) {
	*p = append(*p, problem{setting, text, fix})
}

// err is nil when there are none.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// list splits a comma-separated setting.
func list(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// fileResolver reads a setting from the file that NAME_FILE names when NAME
// itself is not set. Container platforms mount secrets as files.
type fileResolver struct{}

func (fileResolver) Validate(*kong.Application) error { return nil }

func (fileResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		path := os.Getenv(name + "_FILE")
		if path == "" {
			continue
		}
		if os.Getenv(name) != "" {
			return nil, fmt.Errorf("%s and %s_FILE are both set: unset one", name, name)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			if failure, ok := errors.AsType[*fs.PathError](err); ok {
				err = failure.Err
			}
			return nil, fmt.Errorf("%s_FILE: %s can't be read: %w", name, path, err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return nil, nil
}
