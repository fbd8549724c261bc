package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"gatehouse/internal/dial"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

// doctorCommand looks for what would keep a role from running well, and changes
// nothing. It reads what that role reads, so it is run where the role runs.
type doctorCommand struct {
	Role         string `arg:"" optional:"" default:"up" enum:"up,serve,auth,users,bff" help:"Which command is to run here: up, serve, auth, users or bff. up if empty."`
	Registration string `env:"GATEHOUSE_REGISTRATION" placeholder:"open|verify|closed" help:"Who may make an account."`
	AuthURL      string `env:"AUTH_URL" placeholder:"URL" help:"Where auth is."`
	UsersURL     string `env:"USERS_URL" placeholder:"URL" help:"Where users is."`
	TestMail     string `placeholder:"EMAIL" help:"Send a test mail to this address by SMTP_URL. Without it the doctor signs in to the mail server and sends nothing."`
	dataFlags
	shareFlags
	houseFlags
}

// doctorLimit bounds one check.
const doctorLimit = 5 * time.Second

func (c *doctorCommand) Run(p *program, app *kong.Application) error {
	e := &examination{ctx: p.ctx}
	switch c.Role {
	case "up":
		c.examineUp(e, app)
	case "serve":
		c.examineServe(e, app)
	default:
		c.examineRole(e, app)
	}
	e.print(p.stdout)
	if bad := e.bad(); bad > 0 {
		return fmt.Errorf("%d of %d checks found something to mend", bad, len(e.findings))
	}
	return nil
}

// examination is what was looked at and found.
type examination struct {
	ctx      context.Context //nolint:containedctx // of the one command
	findings []finding
	pools    map[string]int // the connections that one copy may open, by server
	issuer   string         // the public URL that auth or the gateway would start with; empty for none
}

// finding is one check's: what is well, or a fault and its mend.
type finding struct{ part, well, fault, mend string }

func (e *examination) well(part, format string, args ...any) {
	e.findings = append(e.findings, finding{part: part, well: fmt.Sprintf(format, args...)})
}

func (e *examination) fault(part, fault, mend string) {
	e.findings = append(e.findings, finding{part: part, fault: fault, mend: mend})
}

func (e *examination) bad() int {
	bad := 0
	for _, f := range e.findings {
		if f.fault != "" {
			bad++
		}
	}
	return bad
}

func (e *examination) print(out io.Writer) {
	for _, f := range e.findings {
		if f.fault == "" {
			fmt.Fprintf(out, "ok   %s: %s\n", f.part, f.well)
			continue
		}
		fmt.Fprintf(out, "BAD  %s: %s\n     mend: %s\n", f.part, f.fault, f.mend)
	}
}

// settings takes over the mistakes in the settings.
func (e *examination) settings(m mistakes) {
	if len(m) == 0 {
		e.well("settings", "they can be used")
	}
	for _, one := range m {
		part := one.setting
		if part == "" {
			part = "settings"
		}
		e.fault(part, one.fault, one.mend)
	}
}

// examineUp looks at everything in one process, whose Postgres may be embedded.
func (c *doctorCommand) examineUp(e *examination, app *kong.Application) {
	embedded := c.DatabaseURL == ""
	made := c.examineFolder(e, embedded)
	if c.Registration == "" {
		c.Registration = "open"
	}
	// A key that up has yet to make isn't missing.
	for _, key := range []*string{&c.InternalKey, &c.SecretKey} {
		if *key == "" {
			*key = hex.EncodeToString(make([]byte, keyLength))
		}
	}
	var m mistakes
	c.mailbox = filepath.Join(c.DataDir, "mailbox")
	h := c.houseFlags.parse(&m, app, nil, c.Registration, c.Listen, false)
	e.settings(m)
	c.examineAround(e, h)
	e.issuer = h.edge.publicURL
	switch {
	case !embedded:
		if e.foreign(c.DatabaseURL, c.ShareDatabase) || !e.owner(c.DatabaseURL, c.AtlasDevURL) {
			return
		}
	case !made:
		return
	default:
		server, runs := postgres.Running(c.DataDir)
		if !runs {
			e.well("embedded Postgres", "it doesn't run just now, so its data wasn't looked at")
			return
		}
		c.DatabaseURL = server.URL(embeddedDatabase)
	}
	if len(h.secrets) == 0 {
		return
	}
	logins, err := loginsOf(c.DatabaseURL, c.AuthDatabaseURL, c.UsersDatabaseURL, h.secrets)
	if err != nil {
		e.fault("DATABASE_URL", err.Error(), "correct it")
		return
	}
	e.service("DATABASE_URL", logins.auth, schema.Auth, h.secrets)
	e.service("DATABASE_URL", logins.users, schema.Users, nil)
	e.keyAge(logins.auth, h.rules.keyLife)
}

// examineAround looks at what all three roles in one process have around them,
// beside Postgres.
func (c *doctorCommand) examineAround(e *examination, h house) {
	e.port("GATEHOUSE_LISTEN", c.Listen)
	e.port("GATEHOUSE_OPS_LISTEN", c.OpsListen)
	e.publicURL(h.edge.publicURL)
	e.mail(h.rules.mail, c.TestMail)
	e.redis(h.edge.redisURL)
}

// examineFolder looks at the data folder, takes the keys from it that aren't
// given, and reports whether anything was made there yet.
func (c *doctorCommand) examineFolder(e *examination, embedded bool) (made bool) {
	const part = "GATEHOUSE_DATA_DIR"
	info, err := os.Stat(c.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.well(part, "%s will be made", c.DataDir)
		return false
	case err != nil:
		e.fault(part, err.Error(), "make the folder readable, or name another")
		return false
	case !info.IsDir():
		e.fault(part, c.DataDir+" is no folder", "name another")
		return false
	}
	probe, err := os.CreateTemp(c.DataDir, ".doctor-")
	if err != nil {
		e.fault(part, err.Error(), "make the folder writable, or name another")
		return false
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	_, err = os.Stat(filepath.Join(c.DataDir, "postgres"))
	made = err == nil
	whole := c.examineKey(e, "secret.key", &c.SecretKey, made && embedded)
	if !c.examineKey(e, "internal.key", &c.InternalKey, false) || !whole {
		return made
	}
	e.well(part, "%s can be used", c.DataDir)
	return made
}

// examineKey looks at a key that up keeps in the data folder, and reports
// whether all is well with it.
func (c *doctorCommand) examineKey(e *examination, file string, value *string, needed bool) bool {
	if *value != "" {
		return true // given, and looked at as a setting
	}
	path := filepath.Join(c.DataDir, file)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && needed:
		e.fault(path, "it is gone, and the data beside it can't be used without", "put it back from a backup of the data folder")
		return false
	case errors.Is(err, fs.ErrNotExist):
		return true
	case err != nil:
		e.fault(path, err.Error(), "make it readable for whoever runs gatehouse")
		return false
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyLength {
		e.fault(path, "it is not 32 bytes in hex", "put it back from a backup of the data folder")
		return false
	}
	*value = strings.TrimSpace(string(text))
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		e.fault(path, fmt.Sprintf("others may read it (%04o)", info.Mode().Perm()), "chmod 600 "+quoted(path))
		return false
	}
	return true
}

// examineServe looks at all roles in one process on a given Postgres.
func (c *doctorCommand) examineServe(e *examination, app *kong.Application) {
	if c.Registration == "" {
		c.Registration = "verify"
	}
	var m mistakes
	apart := c.AuthDatabaseURL != "" && c.UsersDatabaseURL != ""
	h := c.houseFlags.parse(&m, app, nil, c.Registration, "", !apart)
	e.settings(m)
	c.examineAround(e, h)
	e.issuer = h.edge.publicURL
	if len(h.secrets) == 0 || c.DatabaseURL == "" && !apart {
		return
	}
	logins, err := loginsOf(c.DatabaseURL, c.AuthDatabaseURL, c.UsersDatabaseURL, h.secrets)
	if err != nil {
		e.fault("DATABASE_URL", err.Error(), "correct it")
		return
	}
	e.service(given("AUTH_DATABASE_URL", c.AuthDatabaseURL), logins.auth, schema.Auth, h.secrets)
	e.service(given("USERS_DATABASE_URL", c.UsersDatabaseURL), logins.users, schema.Users, nil)
	e.keyAge(logins.auth, h.rules.keyLife)
}

// given is the setting that a service's database comes from.
func given(own, value string) string {
	if value == "" {
		return "DATABASE_URL"
	}
	return own
}

// examineRole looks at one role and at those that it calls.
func (c *doctorCommand) examineRole(e *examination, app *kong.Application) {
	var m mistakes
	switch c.Role {
	case roleAuth:
		role := authCommand{
			Listen: c.listen("127.0.0.1:8002"), Registration: c.Registration, UsersURL: c.UsersURL,
			authDatabaseFlags: c.authDatabaseFlags, internalFlags: c.internalFlags, secretFlags: c.secretFlags, publicFlags: c.publicFlags,
			accountFlags: c.accountFlags, stopFlags: c.stopFlags, opsFlags: c.opsFlags, throttleFlags: c.throttleFlags,
		}
		if role.Registration == "" {
			role.Registration = "verify"
		}
		s := role.parse(&m, app)
		e.settings(m)
		e.issuer = s.issuer
		e.port("GATEHOUSE_LISTEN", role.Listen)
		e.service("AUTH_DATABASE_URL", c.AuthDatabaseURL, schema.Auth, s.secrets)
		e.keyAge(c.AuthDatabaseURL, s.rules.keyLife)
		e.publicURL(s.issuer)
		e.mail(s.rules.mail, c.TestMail)
		e.peer("USERS_URL", c.UsersURL, dial.Route{Caller: roleAuth, Callee: roleUsers, Keys: s.keys})
	case roleUsers:
		role := usersCommand{
			Listen: c.listen("127.0.0.1:8003"), usersDatabaseFlags: c.usersDatabaseFlags, internalFlags: c.internalFlags,
			stopFlags: c.stopFlags, opsFlags: c.opsFlags,
		}
		role.parse(&m, app)
		e.settings(m)
		e.port("GATEHOUSE_LISTEN", role.Listen)
		e.service("USERS_DATABASE_URL", c.UsersDatabaseURL, schema.Users, nil)
	case roleBff:
		role := bffCommand{
			Listen: c.listen("127.0.0.1:8001"), AuthURL: c.AuthURL, UsersURL: c.UsersURL, internalFlags: c.internalFlags,
			edgeFlags: c.edgeFlags, stopFlags: c.stopFlags, opsFlags: c.opsFlags, throttleFlags: c.throttleFlags,
		}
		s := role.parse(&m, app)
		e.settings(m)
		e.issuer = s.edge.publicURL
		e.port("GATEHOUSE_LISTEN", role.Listen)
		e.publicURL(s.edge.publicURL)
		e.redis(s.edge.redisURL)
		e.peer("AUTH_URL", c.AuthURL, dial.Route{Caller: roleBff, Callee: roleAuth, Keys: s.keys})
		e.peer("USERS_URL", c.UsersURL, dial.Route{Caller: roleBff, Callee: roleUsers, Keys: s.keys})
	}
	e.port("GATEHOUSE_OPS_LISTEN", c.OpsListen)
}

// listen is where a role listens, whose own default isn't the gateway's.
func (c *doctorCommand) listen(standard string) string {
	if c.Listen == "127.0.0.1:8001" && os.Getenv("GATEHOUSE_LISTEN") == "" {
		return standard
	}
	return c.Listen
}

// webAddress reports whether a setting's text can be asked at all; what is wrong
// with it is among the settings.
func webAddress(text string) bool {
	parsed, err := url.Parse(text)
	return err == nil && parsed.Host != "" && (parsed.Scheme == "http" || parsed.Scheme == "https")
}
