package app

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

func checkProviders(t *testing.T, text string) (*providerFlags, string) {
	t.Helper()
	folder := t.TempDir()
	encoded, err := x509.MarshalPKCS8PrivateKey(providertest.NewECKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"providers.yaml": text, "secret": "a secret\n", "empty": " \n",
		"key.p8": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flags := &providerFlags{Providers: filepath.Join(folder, "providers.yaml")}
	var found problems
	flags.check(&checks{problems: &found})
	return flags, found.Error()
}

func TestProvidersAreReadFromAFile(t *testing.T) {
	t.Parallel()
	flags, text := checkProviders(t, `
- {id: google, kind: google, client_id: one, client_secret_file: secret}
- {id: ms, kind: microsoft, client_id: two, client_secret_file: secret, tenant: common}
- {id: apple, kind: apple, client_id: three, team_id: TEAM, key_id: KEY, key_file: key.p8}
- {id: github, kind: github, client_id: four, client_secret_file: secret, sign_up: false}
- {id: work, kind: oidc, name: Work, client_id: five, issuer: "https://login.example.com", email_domains: [example.com], redirect_uris: ["com.example.app:/cb"], client_ids: [app], second_factor: trusted}
`)
	if text != "invalid settings:" || len(flags.providers) != 5 {
		t.Fatalf("got %d providers and %s, want 5 and no problem", len(flags.providers), text)
	}
	google, github, work := flags.providers[0], flags.providers[3], flags.providers[4]
	if !work.TrustSecondFactor || google.TrustSecondFactor || len(work.ClientIDs) != 1 {
		t.Errorf("got %+v, want the client id of an app, and the second factor trusted", work)
	}
	if google.ClientSecret != "a secret" || google.Name != "Google" || !google.SignUp || github.SignUp || flags.providers[2].Key == nil || flags.providers[4].Kind != provider.OIDC {
		t.Errorf("got %+v", flags.providers)
	}
}

func TestAllMistakesOfProvidersAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, text := checkProviders(t, `
- {id: Google, kind: gogle}
- {id: ms, kind: microsoft, client_id: x, client_secret_file: missing, tenant: example.com, issuer: "https://login.example.com"}
- {id: ms, kind: apple, client_id: x, key_file: secret, client_secret_file: secret}
- {id: work, kind: oidc, client_id: x, issuer: "http://login.example.com", email_domains: ["@example.com"], redirect_uris: ["javascript:alert(1)", "http://app.example.com/cb", "https://app.example.com/cb"], team_id: x}
- {id: other, kind: oidc, client_id: x, issuer: "https://login.example.com", redirect_uris: ["https://app.example.com/cb"]}
- {id: gh, kind: github, client_id: x, client_secret_file: empty, email_domains: [example.com], tenant: common, client_ids: [x]}
- {id: two, kind: oidc, client_id: x, issuer: "https://login.example.com", second_factor: always}
`)
	for _, want := range []string{
		`id "Google"`, `kind "gogle"`, "client_id is missing", "client_secret_file missing can't be read", `tenant "example.com"`, "issuer is only for", "another entry's",
		"team_id, key_id or key_file is missing", "not a P-256 key", "client_secret_file is not for", "it is not https", `"@example.com" in email_domains`, `"javascript:alert(1)" in redirect_uris`, `"http://app.example.com/cb" in redirect_uris`, `"https://app.example.com/cb" in redirect_uris is also work's`,
		"are only for the kind apple", "client_secret_file empty", "email_domains is only for", "tenant is only for",
		"not for the kind github", `second_factor "always"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not reported in\n%s", want, text)
		}
	}
	for _, broken := range []string{"- {id: a, colour: red}", "id: a", "- ["} {
		if _, text := checkProviders(t, broken); !strings.Contains(text, "GATEHOUSE_PROVIDERS") {
			t.Errorf("%s: got %s, want a problem", broken, text)
		}
	}
}
