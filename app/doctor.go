package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"gatehouse/app/doctor"
	"gatehouse/internal/dial"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

const commandDoctor = "doctor"

// doctorCommand examines what a role depends on, and changes nothing. It reads
// the settings of that role, so run it where the role runs.
type doctorCommand struct {
	Role     string `arg:"" optional:"" default:"up" placeholder:"ROLE" help:"Examine for this command: up, serve or the name of a service."`
	TestMail string `placeholder:"EMAIL" help:"Send a test mail to this address by SMTP_URL. Without it the doctor signs in to the mail server and sends nothing."`
	kong.Plugins
	settings *settings // of every command
}

// doctorSettings are those of every command that doctor can examine. Defaults that
// differ between the commands are the role's.
func doctorSettings() *settings {
	s := upSettings()
	for _, service := range Services() {
		for _, call := range service.AllCalls() {
			s.peers[call.Service] = &peerFlags{service: call.Service}
		}
	}
	s.defaults["listen"], s.defaults["registration"] = "", ""
	return s
}

// settingsFor returns the settings of the role, with the values that doctor was
// given.
func (c *doctorCommand) settingsFor(role string) (*settings, error) {
	var s *settings
	switch role {
	case commandUp:
		s = c.settings.only(upSettings())
	case commandServe:
		s = c.settings.only(newSettings(commandServe, Services()...))
	default:
		service, err := serviceNamed(role)
		if err != nil {
			return nil, problems{{"ROLE", err.Error(), "name up, serve or a service"}}
		}
		s = c.settings.only(newSettings(role, service))
	}
	if listen := find[*listenFlags](s); listen.Listen == "" {
		listen.Listen = s.defaults["listen"]
	}
	if accounts := find[*accountFlags](s); accounts != nil && accounts.Registration == "" {
		if accounts.Registration = s.defaults["registration"]; accounts.Registration == "" {
			accounts.Registration = defaultRegistration
		}
	}
	return s, nil
}

func (c *doctorCommand) Run(p *program, app *kong.Application) error {
	s, err := c.settingsFor(c.Role)
	if err != nil {
		return err
	}
	e := &examination{program: p, settings: s, report: doctor.NewReport(p.ctx)}
	embedded := c.Role == commandUp && find[*databaseFlags](s).DatabaseURL == ""
	made := false
	if c.Role == commandUp {
		made = e.dataFolder(embedded)
	}
	e.checkSettings(app)
	for _, service := range s.services {
		if service.examine != nil {
			service.examine(e.report, s, c.TestMail)
		}
	}
	e.ports()
	if e.findDatabase(embedded, made) {
		e.databases()
	}
	e.peers()
	e.report.Write(p.stdout)
	if problems := e.report.Problems(); problems > 0 {
		return fmt.Errorf("%d of %d checks found a problem", problems, e.report.Checks())
	}
	return nil
}

// examination is one run of the doctor.
type examination struct {
	*program
	settings *settings
	report   *doctor.Report
}

// checkSettings reports the problems of the settings.
func (e *examination) checkSettings(app *kong.Application) {
	if e.settings.command == commandUp {
		find[*mailFlags](e.settings).mailbox = filepath.Join(find[*dataFlags](e.settings).DataDir, "mailbox")
		find[*publicFlags](e.settings).listen = find[*listenFlags](e.settings).Listen
		for i, key := range secretFiles(e.settings) {
			if *key.value == "" { // up generates it, different from the others
				placeholder := make([]byte, keyLength)
				placeholder[0] = byte(i)
				*key.value = hex.EncodeToString(placeholder)
			}
		}
	}
	var invalid problems
	e.settings.check(&invalid, app)
	if len(invalid) == 0 {
		e.report.OK("settings", "they are valid")
	}
	for _, one := range invalid {
		subject := one.setting
		if subject == "" {
			subject = "settings"
		}
		e.report.Problem(subject, one.text, one.fix)
	}
}

func (e *examination) ports() {
	e.report.Port("GATEHOUSE_LISTEN", find[*listenFlags](e.settings).Listen)
	e.report.Port("GATEHOUSE_OPS_LISTEN", find[*opsFlags](e.settings).OpsListen)
}

// dataFolder examines the data folder, takes the keys from it that aren't given,
// and reports whether up has created a database there.
func (e *examination) dataFolder(embedded bool) (made bool) {
	const subject = "GATEHOUSE_DATA_DIR"
	dir := find[*dataFlags](e.settings).DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.report.OK(subject, "%s will be created", dir)
		return false
	case err != nil:
		e.report.Problem(subject, err.Error(), "make the folder readable, or name another")
		return false
	case !info.IsDir():
		e.report.Problem(subject, dir+" is not a folder", "name another")
		return false
	}
	probe, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		e.report.Problem(subject, err.Error(), "make the folder writable, or name another")
		return false
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	_, err = os.Stat(filepath.Join(dir, "postgres"))
	made = err == nil
	intact := true
	for _, key := range secretFiles(e.settings) {
		// Without the secret key, the data can't be used.
		needed := made && embedded && key.value == &find[*secretFlags](e.settings).SecretKey
		intact = e.keyFile(filepath.Join(dir, key.file), key.value, needed) && intact
	}
	if intact {
		e.report.OK(subject, "%s can be used", dir)
	}
	return made
}

// keyFile examines a key that up keeps in a file, and reports whether it can be
// used.
func (e *examination) keyFile(path string, value *string, needed bool) bool {
	if *value != "" {
		return true // given, and checked as a setting
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && needed:
		e.report.Problem(path, "it is missing, and the data can't be used without it", "put it back from a backup of the data folder")
		return false
	case errors.Is(err, fs.ErrNotExist):
		return true
	case err != nil:
		e.report.Problem(path, err.Error(), "make it readable for the user who runs gatehouse")
		return false
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyLength {
		e.report.Problem(path, "it is not 32 bytes in hex", "put it back from a backup of the data folder")
		return false
	}
	*value = strings.TrimSpace(string(text))
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		e.report.Problem(path, fmt.Sprintf("others may read it (%04o)", info.Mode().Perm()), "chmod 600 "+quoted(path))
		return false
	}
	return true
}

// findDatabase finds the database of up and of serve, and reports whether the
// services' own databases can be examined.
func (e *examination) findDatabase(embedded, made bool) bool {
	if len(e.settings.services) == 1 {
		return true
	}
	if len(find[*secretFlags](e.settings).keys) == 0 {
		return false // the logins are derived from it
	}
	database := find[*databaseFlags](e.settings)
	switch {
	case e.settings.command == commandServe:
		needed := false
		for _, login := range e.settings.logins {
			needed = needed || login.URL == ""
		}
		return !needed || database.DatabaseURL != ""
	case !embedded:
		config := schema.Config{SQL: e.schema, Own: ownSchemas(), DatabaseURL: database.DatabaseURL, Shared: find[*shareFlags](e.settings).ShareDatabase}
		return !e.report.Foreign(config) && e.report.Owner(database.DatabaseURL, database.AtlasDevURL, schemas())
	case !made:
		return false
	}
	server, running := postgres.Running(find[*dataFlags](e.settings).DataDir)
	if !running {
		e.report.OK("embedded Postgres", "it is not running, so its data was not examined")
		return false
	}
	database.DatabaseURL = server.URL(embeddedDatabase)
	return true
}

// databases examines the databases of the services that run in the process.
func (e *examination) databases() {
	var logins map[string]login
	if len(e.settings.services) > 1 {
		var err error
		if logins, err = e.settings.deriveLogins(); err != nil {
			e.report.Problem("DATABASE_URL", err.Error(), "correct it")
			return
		}
	}
	for _, service := range e.settings.services {
		if !service.HasTables() {
			continue
		}
		number, err := schema.Number(service.schemaText(e.schema))
		if err != nil {
			e.report.Problem("schema.sql of "+service.Name, err.Error(), "use a released binary")
			continue
		}
		given := e.settings.logins[service.Name]
		database := doctor.Database{Service: service.Name, Setting: given.name(), URL: given.URL, SchemaNumber: number}
		if logins != nil && given.URL == "" {
			database.Setting, database.URL = "DATABASE_URL", logins[service.Name].url
		}
		for _, other := range schemas() {
			if other != service.Name {
				database.OtherSchemas = append(database.OtherSchemas, other)
			}
		}
		if service.examineDatabase != nil {
			database.Examine = func(ctx context.Context, conn *pgx.Conn) { service.examineDatabase(ctx, e.report, conn, e.settings) }
		}
		e.report.Database(database)
		e.standby(service.Name, database.URL, logins)
	}
}

// standby examines the standby of a service, if it has one.
func (e *examination) standby(service, primary string, logins map[string]login) {
	given := e.settings.standbyOf(service)
	if given.url == "" || primary == "" {
		return
	}
	if logins == nil {
		var err error
		if logins, err = e.settings.deriveLogins(); err != nil {
			return // a problem of the settings
		}
	}
	url, _, err := given.login(logins[service])
	if err != nil {
		return // a problem of the settings
	}
	e.report.Standby(doctor.Standby{Service: service, Setting: given.setting(), URL: url, Primary: primary})
}

// schemas are the Postgres schemas of all services.
func schemas() []string {
	var names []string
	for _, service := range Services() {
		if service.HasTables() {
			names = append(names, service.Name)
		}
	}
	return names
}

// peers examines the services that are called over the network.
func (e *examination) peers() {
	publicURL := ""
	if public := find[*publicFlags](e.settings); public != nil {
		publicURL = public.url
	}
	for _, service := range e.settings.services {
		for _, call := range service.AllCalls() {
			flags := e.settings.peers[call.Service]
			callee, err := serviceNamed(call.Service)
			if flags == nil || err != nil || call.optional && flags.URL == "" {
				continue
			}
			e.report.Peer(doctor.Peer{
				Setting: flags.name(), URL: flags.URL, PublicURL: publicURL,
				Route: dial.Route{Caller: service.Name, Callee: call.Service, Keys: find[*internalFlags](e.settings).keys},
				Probe: callee.probeAs(service.Name),
			})
		}
	}
}
