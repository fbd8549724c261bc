package app

import (
	"strings"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// databaseFlags name the Postgres database and the user who applies the schema.
type databaseFlags struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"Connect to this Postgres database as a user who may create roles and databases."`
	AtlasDevURL string `env:"ATLAS_DEV_URL" placeholder:"URL" help:"Plan the schema on this empty scratch database. Needed only if the user of DATABASE_URL may not create databases."`
}

func (f *databaseFlags) check(c *checks) {
	needed := false
	if c.settings.command == commandServe { // each login that isn't given is derived from it
		for _, login := range c.settings.logins {
			needed = needed || login.URL == ""
		}
	}
	f.checkURLs(c.problems, needed)
}

func (f *databaseFlags) checkURLs(p *problems, needed bool) {
	checkDatabaseURL(p, "DATABASE_URL", f.DatabaseURL, needed)
	checkDatabaseURL(p, "ATLAS_DEV_URL", f.AtlasDevURL, false)
}

// loginFlags name a service's own login. Their flags and names begin with the
// service's name.
type loginFlags struct {
	URL string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Connect to Postgres as the login role of ${service}."`

	service string
}

func (f *loginFlags) name() string { return loginSetting(f.service) }

func loginSetting(service string) string { return strings.ToUpper(service) + "_DATABASE_URL" }

const urlFix = "set it to a URL such as postgres://user:password@host:5432/gatehouse"

func checkDatabaseURL(p *problems, name, value string, needed bool) {
	if value == "" {
		if needed {
			p.add(name, "is not set", urlFix)
		}
		return
	}
	if strings.Contains(value, "://") && !strings.HasPrefix(value, "postgres://") && !strings.HasPrefix(value, "postgresql://") {
		p.add(name, "is not a Postgres URL", "begin it with postgres://")
	}
}

// readerFlags name the login of people who look at the tables.
type readerFlags struct {
	ReaderDatabaseURL string `env:"READER_DATABASE_URL" placeholder:"URL" help:"Create a login role that can read the tables without their secrets, with the user and password of this URL. None is created if empty."`
}

func (f *readerFlags) parse(p *problems) schema.Role {
	const setting = "READER_DATABASE_URL"
	checkDatabaseURL(p, setting, f.ReaderDatabaseURL, false)
	if f.ReaderDatabaseURL == "" || len(*p) > 0 {
		return schema.Role{}
	}
	config, err := database.ParseConfig(f.ReaderDatabaseURL)
	switch {
	case err != nil:
		p.add(setting, "can't be parsed as a Postgres URL", "set it to a URL such as postgres://user:password@host:5432/database")
	case config.User == "" || config.Password == "":
		p.add(setting, "has no user or no password", "set it to a URL such as postgres://user:password@host:5432/database")
	default:
		return schema.Role{Name: config.User, Password: config.Password}
	}
	return schema.Role{}
}

// shareFlags permit a database that others use.
type shareFlags struct {
	ShareDatabase bool `env:"GATEHOUSE_SHARE_DATABASE" help:"Create the services' schemas in a database that already holds other tables. Otherwise such a database is refused, unless a person at the terminal permits it."`
}

func (*shareFlags) check(*checks) {}
