package operate

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// moves are the systems that docs/how-to/move.md names. Their data is in testdata/move:
// tables with the columns that each system has, and hashes that its own library made of
// harness.Password: Django 3.2, bcrypt 3.2, argon2-cffi 21.1 with Keycloak's costs, Python's
// hashlib for scrypt and PBKDF2, and for Firebase the algorithm that its repository
// publishes, by Node's crypto.
var moves = []struct {
	from string
	// people are the emails of those who sign in afterwards, with their first names.
	people map[string]string
	// disabled are accounts that must not, and without those that have no password.
	disabled, without []string
}{
	{"supabase", map[string]string{"bcrypt@supabase.example": "Ada", "firebase@supabase.example": "Grace"}, []string{"banned@supabase.example"}, []string{"social@supabase.example"}},
	{"keycloak", map[string]string{"argon2@keycloak.example": "Ada", "sha256@keycloak.example": "Grace", "sha512@keycloak.example": "Joan"},
		[]string{"disabled@keycloak.example"}, []string{"federated@keycloak.example"}},
	{"django", map[string]string{"pbkdf2@django.example": "Ada", "argon2@django.example": "Grace", "scrypt@django.example": "Joan", "bcrypt@django.example": "Mary",
		"bcryptsha@django.example": "Edith"}, []string{"inactive@django.example"}, []string{"unusable@django.example"}},
	{"devise", map[string]string{"bcrypt@devise.example": "Ada"}, nil, []string{"invited@devise.example"}},
	{"firebase", map[string]string{"ada@firebase.example": "Ada", "grace@firebase.example": "Grace"}, []string{"disabled@firebase.example"}, []string{"google@firebase.example"}},
	{"auth0", map[string]string{"ada@auth0.example": "Ada"}, []string{"blocked@auth0.example"}, []string{"social@auth0.example"}},
}

// The files of deploy/import turn the data of other systems into lines that are imported,
// and people sign in with the passwords that they had.
func TestAccountsMoveFromOtherSystems(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	for _, move := range moves {
		t.Run(move.from, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "accounts.jsonl")
			if err := os.WriteFile(file, exported(t, move.from), 0o600); err != nil {
				t.Fatal(err)
			}
			if status, said := harness.RunCommand(t, importSettings(s), "admin", "import", file); status != 0 {
				t.Fatalf("admin import: exit status %d, said %s", status, said)
			}
			for email, name := range move.people {
				wantMoved(t, s, email, name)
			}
			for _, email := range move.disabled {
				err := harness.Patiently(func() error {
					_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password})
					return err
				})
				harness.WantReason(t, err, connect.CodePermissionDenied, "ACCOUNT_DISABLED")
			}
			for _, email := range move.without {
				if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email = $1 AND password_hash = ''", email); n != 1 {
					t.Errorf("%s: there are %d such accounts without a password, want 1", email, n)
				}
			}
		})
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email LIKE 'left-out%'"); n != 0 {
		t.Errorf("%d accounts were imported that are none", n)
	}
}

// exported returns the accounts of another system as lines, by the command of the page.
func exported(t *testing.T, from string) []byte {
	t.Helper()
	data := filepath.Join("e2e/operate/testdata/move", from)
	var cmd *exec.Cmd
	switch from {
	case "firebase":
		cmd = exec.Command(testneed.Program(t, "jq"), "--compact-output", "--arg", "key", firebaseKey, "--arg", "separator", "Bw==",
			"--arg", "rounds", "8", "--arg", "mem_cost", "14", "--from-file", "deploy/import/firebase.jq", data+".json")
	case "auth0":
		cmd = exec.Command(testneed.Program(t, "jq"), "--compact-output", "--null-input", "--slurpfile", "hashes", data+"-hashes.json",
			"--from-file", "deploy/import/auth0.jq", data+"-users.json")
	default:
		url := pgtest.Empty(t)
		text, err := os.ReadFile(data + ".sql")
		if err != nil {
			t.Fatal(err)
		}
		harness.Execute(t, url, string(text))
		cmd = exec.Command(testneed.Program(t, "psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--no-align", "--tuples-only", "--variable=realm=myrealm",
			"--file", "deploy/import/"+from+".sql", url)
	}
	var failure bytes.Buffer
	cmd.Stderr = &failure
	lines, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, failure.String())
	}
	return lines
}

// firebaseKey is the signer key of the sample project that Firebase publishes.
const firebaseKey = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="

// importSettings are those that the command reads.
func importSettings(s *harness.System) (settings []string) {
	for _, variable := range s.Roles[harness.RoleAuth].Env {
		if strings.HasPrefix(variable, "AUTH_DATABASE_URL=") || strings.HasPrefix(variable, "GATEHOUSE_SECRET_KEY=") {
			settings = append(settings, variable)
		}
	}
	return settings
}

// wantMoved wants somebody to sign in with their password and no other, to have their name,
// and a hash of ours from then on.
func wantMoved(t *testing.T, s *harness.System, email, name string) {
	t.Helper()
	err := harness.Patiently(func() error {
		_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password + "x"})
		return err
	})
	harness.WantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	harness.Eventually(t, 30*time.Second, "the name of "+email, func() error {
		signedIn, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password})
		if got := signedIn.GetSignedIn().GetUser().GetFirstName(); err == nil && got != name {
			return fmt.Errorf("it is %q, want %q", got, name)
		}
		return err
	})
	if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email = $1 AND password_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'", email); n != 1 {
		t.Errorf("%s signed in and still has the other system's hash", email)
	}
}
