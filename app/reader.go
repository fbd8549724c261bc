package app

import (
	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// readerDatabaseFlags name the login of people who look at the tables.
type readerDatabaseFlags struct {
	ReaderDatabaseURL string `env:"READER_DATABASE_URL" placeholder:"URL" help:"Make a login role that reads the tables without their secrets, with the user and password of this URL. None is made if empty."`
}

func (f readerDatabaseFlags) parse(m *mistakes) schema.Role {
	const setting = "READER_DATABASE_URL"
	checkDatabaseURL(m, setting, f.ReaderDatabaseURL, false)
	if f.ReaderDatabaseURL == "" || len(*m) > 0 {
		return schema.Role{}
	}
	config, err := database.ParseConfig(f.ReaderDatabaseURL)
	switch {
	case err != nil:
		m.add(setting, "can't be read as a Postgres URL", "give it as postgres://user:password@host:5432/database")
	case config.User == "" || config.Password == "":
		m.add(setting, "has no user or no password", "give it as postgres://user:password@host:5432/database")
	default:
		return schema.Role{Name: config.User, Password: config.Password}
	}
	return schema.Role{}
}
