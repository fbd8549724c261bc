package app

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// The lines of compose.yaml that enclose the services.
const (
	composeBegin = "  # The services, written by make gen as gatehouse compose prints them.\n"
	composeEnd   = "  # The end of the services, written by make gen.\n"
)

// composeCommand prints the services of compose.yaml.
type composeCommand struct{}

func (composeCommand) Run(p *program) error {
	_, err := fmt.Fprint(p.stdout, composeServices())
	return err
}

// Compose returns the text of compose.yaml with its services as they are now.
func Compose(text string) (string, error) {
	return between(text, composeBegin, composeServices())
}

// between replaces the services between the line begin and composeEnd.
func between(text, begin, services string) (string, error) {
	before, rest, begins := strings.Cut(text, begin)
	_, after, ends := strings.Cut(rest, composeEnd)
	if !begins || !ends {
		return "", errors.New("the lines that enclose the services are missing")
	}
	return before + begin + services + composeEnd + after, nil
}

// variable is a value that .env must have.
func variable(name string) string { return "${" + name + ":?make .env with ./deploy/env.sh}" }

// composeForm is what the services of one file differ in from those of compose.yaml.
type composeForm struct {
	// database is what follows the password in a database URL.
	database string
	// standby is what follows the password in the URL of the standby; empty without one.
	standby string
	// postgres are the containers of Postgres.
	postgres []string
	// replicas is the number of containers of each service. With more than one, none is
	// published: a load balancer is.
	replicas int
	// values replace those of settings, by the name of the setting.
	values map[string]string
}

var apartForm = composeForm{database: "@postgres:5432/gatehouse?sslmode=disable", postgres: []string{"postgres"}, replicas: 1}

func (f composeForm) databaseURL(user, password string) string {
	return "postgres://" + user + ":" + variable(password) + f.database
}

func (f composeForm) loginURL(d Definition) string {
	return f.databaseURL("gatehouse_"+d.Name, strings.ToUpper(d.Name)+"_DATABASE_PASSWORD")
}

func (d Definition) port() string {
	_, port, _ := net.SplitHostPort(d.Listen) // a test checks it
	return port
}

// composeServices are the services that run this program: one that applies the schema,
// and one for each service.
func composeServices() string { return apartForm.services() }

func (f composeForm) services() string {
	var b strings.Builder
	f.writeSchema(&b)
	services := Services()
	for i, service := range services {
		f.writeService(&b, service, i == len(services)-1)
	}
	b.WriteString("\n")
	return b.String()
}

func (f composeForm) writeSchema(b *strings.Builder) {
	b.WriteString(`
  # Runs once at every start. Creates the login roles of the services and of pgAdmin
  # with the names and passwords of the URLs below.
  schema:
    <<: *gatehouse
    pull_policy: build
    build:
      context: .
      # What gatehouse version says: the build context has no version control.
      args: { COMMIT: "${COMMIT:-unknown}", COMMIT_TIME: "${COMMIT_TIME:-unknown}" }
    command: [schema, apply]
    environment:
`)
	fmt.Fprintf(b, "      DATABASE_URL: %s\n", f.databaseURL("gatehouse", "POSTGRES_PASSWORD"))
	f.writeLogins(b)
	fmt.Fprintf(b, "      READER_DATABASE_URL: %s\n", f.databaseURL("gatehouse_reader", "READER_DATABASE_PASSWORD"))
	b.WriteString("    networks: [database]\n    depends_on:\n")
	for _, postgres := range f.postgres {
		fmt.Fprintf(b, "      %s: { condition: service_healthy }\n", postgres)
	}
}

// writeLogins writes the database URL of each service.
func (f composeForm) writeLogins(b *strings.Builder) {
	for _, service := range Services() {
		if service.HasTables() {
			fmt.Fprintf(b, "      %s: %s\n", loginSetting(service.Name), f.loginURL(service))
		}
	}
}

func (f composeForm) writeService(b *strings.Builder, d Definition, front bool) {
	fmt.Fprintf(b, "\n  %s:\n    <<: *role\n    command: [%s]\n    environment:\n      GATEHOUSE_LISTEN: :%s\n", d.Name, d.Name, d.port())
	var waits []string
	if d.HasTables() {
		fmt.Fprintf(b, "      %s: %s\n", loginSetting(d.Name), f.loginURL(d))
		if f.standby != "" && d.readsStandby() {
			reads := composeForm{database: f.standby}
			fmt.Fprintf(b, "      %s: %s\n", standby{service: d.Name}.setting(), reads.loginURL(d))
		}
		waits = append(waits, "      schema: { condition: service_completed_successfully }\n")
	}
	for _, call := range d.AllCalls() {
		callee, err := serviceNamed(call.Service)
		if err != nil {
			continue // a test checks it
		}
		fmt.Fprintf(b, "      %s: http://%s:%s\n", (&peerFlags{service: callee.Name}).name(), callee.Name, callee.port())
		if !call.Persistent {
			waits = append(waits, fmt.Sprintf("      %s: { condition: service_healthy }\n", callee.Name))
		}
	}
	f.writeSettings(b, d)
	if d.readsFiles() {
		fmt.Fprintf(b, "    volumes: [\"%s/%s:/etc/gatehouse/%s:ro\"]\n", composeFiles, d.Name, d.Name)
	}
	if d.HasTables() {
		b.WriteString("    networks: [database, default]\n")
	}
	if f.replicas > 1 {
		fmt.Fprintf(b, "    deploy: { replicas: %d }\n", f.replicas)
	} else if front {
		fmt.Fprintf(b, "    ports: [\"127.0.0.1:%s:%s\"]\n", d.port(), d.port())
	}
	if len(waits) > 0 {
		b.WriteString("    depends_on:\n" + strings.Join(waits, ""))
	}
}
