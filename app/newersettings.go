package app

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
)

// After a rollback, the environment may have settings of the newer binary. That binary has
// recorded their names when it applied its schema. Only a process that meets an unknown name
// looks them up.

// namesTimeout limits the lookup.
const namesTimeout = 5 * time.Second

// ignoreNewerSettings removes the recorded names that this binary does not know from the
// environment, with a warning for each. The check of the settings reports the others.
func ignoreNewerSettings(p *program, command *kong.Node) {
	unknown := unknownNames(p.names, os.Environ())
	if len(unknown) == 0 || command == nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, namesTimeout)
	defer cancel()
	recorded, err := recordedNames(ctx, flagValues(command))
	if err != nil {
		p.logger.Warn("names of newer settings not available", "error", err)
	}
	for _, name := range unknown {
		if isSetting(recorded, name) {
			p.logger.Warn("setting of a newer version ignored", "name", name)
			_ = os.Unsetenv(name)
		}
	}
}

// flagValues returns the values of a command's settings, by environment name.
func flagValues(command *kong.Node) map[string]string {
	values := map[string]string{}
	for _, flag := range command.Flags {
		for _, name := range flag.Envs {
			if value, ok := flag.Target.Interface().(string); ok && value != "" {
				values[name] = value
			}
		}
	}
	return values
}

// recordedNames returns the names from the first database that one of the values names and
// that can be read. A command without a database, the gateway, asks auth.
func recordedNames(ctx context.Context, values map[string]string) ([]string, error) {
	const suffix = "DATABASE_URL"
	var failed error
	for _, service := range Services() {
		for _, url := range []string{values[strings.ToUpper(service.Name)+"_"+suffix], values[suffix]} {
			if url == "" || !service.HasTables() {
				continue
			}
			names, err := namesInDatabase(ctx, url, service.Name)
			if err == nil && len(names) > 0 {
				return names, nil
			}
			failed = errors.Join(failed, err)
		}
	}
	if url := values["AUTH_URL"]; url != "" {
		names, err := namesFromAuth(ctx, url, values["GATEHOUSE_INTERNAL_KEY"])
		return names, errors.Join(failed, err)
	}
	return nil, failed
}

func namesInDatabase(ctx context.Context, url, service string) ([]string, error) {
	config, err := database.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return database.SettingNames(ctx, conn, service)
}

func namesFromAuth(ctx context.Context, url, key string) ([]string, error) {
	var invalid problems
	keys := parseKeys(&invalid, "GATEHOUSE_INTERNAL_KEY", key)
	if err := invalid.err(); err != nil {
		return nil, err
	}
	client, err := dial.Dial(dial.Route{Caller: roleBff, Callee: roleAuth, Keys: keys}, url)
	if err != nil {
		return nil, err
	}
	answer, err := authv1.NewDeploymentServiceClient(client).ListSettingNames(ctx, &authv1.ListSettingNamesRequest{})
	return answer.GetNames(), err
}
