package operate

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"gatehouse/checks/composefile"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// The whole of compose.yaml, less its containers: the schema job and the three
// services run with the commands, settings, order and health checks that stand
// there. Only addresses and the database's name are others.
func TestComposeServicesWorkTogether(t *testing.T) {
	t.Parallel()
	project := composefile.Fresh(t)
	services := composefile.Services(t, project)
	listens := startComposedServices(t, project, services)
	wantAdministrator(t, listens["bff"], services["auth"].Environment)
	wantReader(t, *services["schema"].Environment["READER_DATABASE_URL"], *services["auth"].Environment["GATEHOUSE_ADMIN_EMAIL"])
}

// The same for the one process of compose.serve.yaml.
func TestComposeServeWorks(t *testing.T) {
	t.Parallel()
	project := composefile.FreshFile(t, "compose.serve.yaml")
	services := map[string]types.ServiceConfig{"schema": project.Services["schema"], "serve": project.Services["serve"]}
	listens := startComposedServices(t, project, services)
	wantAdministrator(t, listens["serve"], services["serve"].Environment)
}

// startComposedServices starts them in their order and returns their addresses.
func startComposedServices(t *testing.T, project *types.Project, services map[string]types.ServiceConfig) (listens map[string]string) {
	t.Helper()
	at := map[string]string{} // by the address in the file
	listens = map[string]string{}
	for name, service := range services {
		if listen := service.Environment["GATEHOUSE_LISTEN"]; listen != nil {
			listens[name] = harness.FreeAddress(t)
			at["http://"+name+*listen] = "http://" + listens[name]
		}
	}
	database := composeDatabase(t, project)
	env := func(name string) []string {
		var variables []string
		for setting, value := range services[name].Environment {
			switch local, isAddress := at[*value]; {
			case setting == "GATEHOUSE_LISTEN":
				*value = listens[name]
			case isAddress:
				*value = local
			case strings.HasSuffix(setting, "DATABASE_URL"):
				*value = database(*value)
			}
			variables = append(variables, setting+"="+*value)
		}
		return variables
	}

	done := map[string]bool{"postgres": true}
	for len(done) <= len(services) {
		started := len(done)
		for _, name := range slices.Sorted(maps.Keys(services)) {
			service := services[name]
			waits := slices.ContainsFunc(slices.Collect(maps.Keys(service.DependsOn)), func(on string) bool { return !done[on] })
			if done[name] || waits {
				continue
			}
			done[name] = true
			settings := env(name)
			startComposed(t, name, service, settings)
		}
		if len(done) == started {
			t.Fatalf("of the services, only %v could start: the others wait for each other", slices.Sorted(maps.Keys(done)))
		}
	}
	return listens
}

// wantAdministrator signs in as the administrator of the settings.
func wantAdministrator(t *testing.T, address string, settings types.MappingWithEquals) {
	t.Helper()
	s := &harness.System{URL: "http://" + address}
	signedIn, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{
		Email: *settings["GATEHOUSE_ADMIN_EMAIL"], Password: *settings["GATEHOUSE_ADMIN_PASSWORD"],
	})
	if err != nil {
		t.Fatalf("Login as the administrator: %v", err)
	}
	admin := s.Client(signedIn.GetSignedIn().GetTokens().GetAccessToken())
	harness.Eventually(t, 10*time.Second, "see the administrator's account and profile", func() error {
		me, err := admin.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if err == nil && len(me.GetErrors()) > 0 {
			err = fmt.Errorf("parts are missing: %v", me.GetErrors())
		}
		return err
	})
}

// startComposed starts a service and waits until it is healthy, or has ended without an
// error if it has no health check.
func startComposed(t *testing.T, name string, service types.ServiceConfig, settings []string) {
	t.Helper()
	p := harness.StartProcess(t, settings, service.Command...)
	if service.HealthCheck == nil {
		p.Wait(t)
		if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
			t.Fatalf("%s: exit status %d, said %s%s", name, code, p.Stdout.String(), p.Stderr.String())
		}
		return
	}
	harness.Eventually(t, 30*time.Second, "be healthy: "+name, func() error {
		if p.HasEnded() {
			t.Fatalf("%s ended: %s%s", name, p.Stdout.String(), p.Stderr.String())
		}
		check := harness.StartProcess(t, settings, service.HealthCheck.Test[2:]...)
		check.Wait(t)
		if code := check.Cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("exit status %d: %s", code, check.Stderr.String())
		}
		return nil
	})
}

// composeDatabase makes the database that replaces the service postgres,
// and returns what turns a URL of compose.yaml into one of it.
func composeDatabase(t *testing.T, project *types.Project) func(string) string {
	t.Helper()
	postgres := project.Services["postgres"].Environment
	user, password, name := *postgres["POSTGRES_USER"], *postgres["POSTGRES_PASSWORD"], *postgres["POSTGRES_DB"]
	owner := pgtest.Empty(t)
	parsed, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	return func(given string) string {
		u, err := url.Parse(given)
		if err != nil {
			t.Fatal(err)
		}
		if u.Host != "postgres:5432" || u.Path != "/"+name {
			t.Errorf("a URL leads to %s%s, want postgres:5432/%s", u.Host, u.Path, name)
		}
		given, _ = u.User.Password()
		services, err := pgtest.SchemaConfig(t, owner).Services()
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range append(services, schema.Reader) {
			if u.User.Username() == schema.RoleName(name, service) {
				local, err := schema.ServiceURL(owner, schema.RoleName(parsed.Path[1:], service), given)
				if err != nil {
					t.Fatal(err)
				}
				return local
			}
		}
		if u.User.Username() != user || given != password {
			t.Errorf("a URL is of %s, which is neither the user of the service postgres nor a service's, or has another password", u.User.Username())
		}
		return owner
	}
}

// wantReader checks what pgAdmin's login reads of the account that is there.
func wantReader(t *testing.T, databaseURL, email string) {
	t.Helper()
	conn := pgtest.Connect(t, databaseURL)
	defer conn.Close(t.Context())
	var got string
	if err := conn.QueryRow(t.Context(), "SELECT email FROM auth.accounts").Scan(&got); err != nil || got != email {
		t.Errorf("pgAdmin's login reads the email %q (%v), want %s", got, err, email)
	}
	for _, refused := range []string{"SELECT password_hash FROM auth.accounts", "DELETE FROM auth.accounts"} {
		if _, err := conn.Exec(t.Context(), refused); err == nil {
			t.Errorf("pgAdmin's login may %s", refused)
		}
	}
}
