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

func composeDatabaseURL(user, password string) string {
	return "postgres://" + user + ":" + variable(password) + "@postgres:5432/gatehouse?sslmode=disable"
}

func (d Definition) composeDatabaseURL() string {
	return composeDatabaseURL("gatehouse_"+d.Name, strings.ToUpper(d.Name)+"_DATABASE_PASSWORD")
}

func (d Definition) port() string {
	_, port, _ := net.SplitHostPort(d.Listen) // a test checks it
	return port
}

// composeServices are the services that run this program: one that applies the schema,
// and one for each service.
func composeServices() string {
	var b strings.Builder
	services := Services()
	b.WriteString(`
  # Runs once at every start. Creates the login roles of the services and of pgAdmin
  # with the names and passwords of the URLs below.
  schema:
    <<: *gatehouse
    pull_policy: build
    build: .
    command: [schema, apply]
    environment:
`)
	fmt.Fprintf(&b, "      DATABASE_URL: %s\n", composeDatabaseURL("gatehouse", "POSTGRES_PASSWORD"))
	for _, service := range services {
		if service.HasTables() {
			fmt.Fprintf(&b, "      %s: %s\n", loginSetting(service.Name), service.composeDatabaseURL())
		}
	}
	fmt.Fprintf(&b, "      READER_DATABASE_URL: %s\n", composeDatabaseURL("gatehouse_reader", "READER_DATABASE_PASSWORD"))
	b.WriteString("    networks: [database]\n    depends_on:\n      postgres: { condition: service_healthy }\n")
	for i, service := range services {
		service.writeCompose(&b, i == len(services)-1)
	}
	b.WriteString("\n")
	return b.String()
}

func (d Definition) writeCompose(b *strings.Builder, front bool) {
	fmt.Fprintf(b, "\n  %s:\n    <<: *role\n    command: [%s]\n    environment:\n      GATEHOUSE_LISTEN: :%s\n", d.Name, d.Name, d.port())
	var waits []string
	if d.HasTables() {
		fmt.Fprintf(b, "      %s: %s\n", loginSetting(d.Name), d.composeDatabaseURL())
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
	fmt.Fprintf(b, "      GATEHOUSE_INTERNAL_KEY: %s\n", variable("GATEHOUSE_INTERNAL_KEY"))
	for _, line := range d.compose {
		fmt.Fprintf(b, "      %s\n", line)
	}
	if d.HasTables() {
		b.WriteString("    networks: [database, default]\n")
	}
	if front {
		fmt.Fprintf(b, "    ports: [\"127.0.0.1:%s:%s\"]\n", d.port(), d.port())
	}
	if len(waits) > 0 {
		b.WriteString("    depends_on:\n" + strings.Join(waits, ""))
	}
}
