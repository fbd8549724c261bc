package faults

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"gatehouse/app"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

func TestWithoutUsersSigningInGoesOn(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	admin := s.Admin(t).Client()
	s.Processes[harness.RoleUsers].Kill()
	token := ada.Access

	wantProfileMissing := func(what string, user *bffv1.User, missing []*bffv1.PartError) {
		t.Helper()
		if len(missing) != 1 || missing[0].GetPart() != "profile" || missing[0].GetCode() != "unavailable" || !missing[0].GetRetryable() {
			t.Errorf("%s: errors are %v, want one about the profile", what, missing)
		}
		if user.GetEmail() == "" || user.GetFirstName() != "" {
			t.Errorf("%s: the user is %v, want the account without the profile", what, user)
		}
	}
	login, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
	if err != nil {
		t.Errorf("Login: %v", err)
	}
	wantProfileMissing("Login", login.GetSignedIn().GetUser(), login.GetErrors())
	bob, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "bob@example.com", Password: harness.Password, FirstName: "Bob"})
	if err != nil {
		t.Errorf("Register: %v", err)
	}
	wantProfileMissing("Register", bob.GetSignedIn().GetUser(), bob.GetErrors())
	disabled, err := admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: bob.GetSignedIn().GetUser().GetId()})
	if err != nil {
		t.Errorf("DisableUser: %v", err)
	}
	wantProfileMissing("DisableUser", disabled.GetUser(), disabled.GetErrors())
	if _, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh}); err != nil {
		t.Errorf("Refresh: %v", err)
	}
	if _, err := s.Client(token).Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{}); err != nil {
		t.Errorf("ListSessions: %v", err)
	}

	wantUnavailableFast(t, s, ada)
	if response, err := http.Get(s.URL + "/readyz"); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("without users the gateway says that it isn't ready: %v %v", response, err)
	} else {
		response.Body.Close()
	}

	s.Start(t, harness.RoleUsers)
	harness.Eventually(t, 2*time.Second, "heal by itself", func() error {
		if _, err := s.Client(token).Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
			return fmt.Errorf("GetMe: %w", err)
		}
		got, err := admin.Users.GetUser(t.Context(), &bffv1.GetUserRequest{UserId: bob.GetSignedIn().GetUser().GetId()})
		if err != nil {
			return fmt.Errorf("GetUser of who registered meanwhile: %w", err)
		}
		if got.GetUser().GetFirstName() != "Bob" || got.GetUser().GetStatus() != bffv1.UserStatus_USER_STATUS_DISABLED {
			t.Errorf("who registered and was disabled meanwhile is %v", got)
		}
		return nil
	})
	if n := s.Count(t, "SELECT count(*) FROM users.profiles WHERE email = 'bob@example.com' AND status = 'disabled'"); n != 1 {
		t.Error("users doesn't know that Bob is disabled")
	}
}

// wantUnavailableFast checks that calls that need users are refused at once.
func wantUnavailableFast(t *testing.T, s *harness.System, ada *harness.Person) {
	t.Helper()
	for procedure, body := range map[string]string{
		"/bff.v1.AccountService/GetMe":    `{}`,
		"/bff.v1.UserService/GetUser":     `{"userId":"` + ada.ID + `"}`,
		"/bff.v1.AccountService/UpdateMe": `{"user":{"firstName":"Ada"}}`,
	} {
		var fastest time.Duration
		for range 3 { // one of three, for the machine may be busy
			start := time.Now()
			status, header, answer := s.Post(t, procedure, ada.Access, body)
			took := time.Since(start)
			if fastest == 0 || took < fastest {
				fastest = took
			}
			if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || !strings.Contains(answer, `"code":"unavailable"`) || !strings.Contains(answer, "SERVICE_UNAVAILABLE") {
				t.Errorf("%s: %d, Retry-After %q: %s; want 503 unavailable", procedure, status, header.Get("Retry-After"), answer)
			}
		}
		if fastest > 200*time.Millisecond {
			t.Errorf("%s took %s to say so, want at most 200 ms", procedure, fastest)
		}
	}
}

func TestWithoutAuthNoTokenIsCalledBad(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	s.Processes[harness.RoleAuth].Kill()
	status, header, body := s.Post(t, "/bff.v1.AccountService/GetMe", ada.Access, `{}`)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("GetMe: %d %s; want 503 with Retry-After", status, body)
	}
	// A gateway that starts without auth has no keys: it says that it can't tell.
	s.Processes[harness.RoleBff].Kill()
	role := s.Roles[harness.RoleBff]
	harness.StartProcess(t, append(role.Env, "GATEHOUSE_LISTEN="+role.Listen), harness.RoleBff)
	harness.Eventually(t, 10*time.Second, "the gateway answers", func() error {
		response, err := http.Get(s.URL + "/livez")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	status, _, body = s.Post(t, "/bff.v1.AccountService/GetMe", ada.Access, `{}`)
	if status != http.StatusServiceUnavailable {
		t.Errorf("GetMe without keys: %d %s; want 503", status, body)
	}
	s.Start(t, harness.RoleAuth)
	harness.Eventually(t, 3*time.Second, "heal by itself", func() error {
		_, err := ada.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		return err
	})
}

// Guarantee 3: wherever a process is killed, there is an account and a profile,
// or neither.
func TestKilledBetweenAnyTwoStepsThereAreBothOrNeither(t *testing.T) {
	t.Parallel()
	creation := map[string]string{
		"bff: before auth is asked":             harness.RoleBff,
		"auth: before the account is written":   harness.RoleAuth,
		"auth: before the profile is written":   harness.RoleAuth,
		"auth: before the account is committed": harness.RoleAuth,
		"auth: after the account is committed":  harness.RoleAuth,
		"users: before the profile is written":  harness.RoleUsers,
		"users: before commit":                  harness.RoleUsers,
		"users: after commit":                   harness.RoleUsers,
		"auth: after users has acknowledged":    harness.RoleAuth,
		"bff: after auth has answered":          harness.RoleBff,
	}
	change := map[string]string{
		"bff: before auth is asked to change the email": harness.RoleBff,
		"auth: before the account is changed":           harness.RoleAuth,
		"auth: before the change is logged":             harness.RoleAuth,
		"auth: before the change is committed":          harness.RoleAuth,
		"auth: after the change is committed":           harness.RoleAuth,
		"users: before an account event is applied":     harness.RoleUsers,
		"users: before the profile is written":          harness.RoleUsers,
		"users: before account events are committed":    harness.RoleUsers,
		"users: after account events are committed":     harness.RoleUsers,
		"bff: after auth has changed the email":         harness.RoleBff,
	}
	deletion := map[string]string{
		"bff: before auth is asked to delete":        harness.RoleBff,
		"auth: before the account is deleted":        harness.RoleAuth,
		"auth: before the outbox is erased":          harness.RoleAuth,
		"auth: before the deletion is committed":     harness.RoleAuth,
		"auth: after the deletion is committed":      harness.RoleAuth,
		"users: before an account event is applied":  harness.RoleUsers,
		"users: before the profile is deleted":       harness.RoleUsers,
		"users: before account events are committed": harness.RoleUsers,
		"users: after account events are committed":  harness.RoleUsers,
		"bff: after auth has deleted":                harness.RoleBff,
	}
	for _, test := range []struct {
		name  string
		steps map[string]string
		call  func(t *testing.T, s *harness.System, admin harness.Client, n int) (email string, err error)
		// want says how many accounts with the email an acknowledged call leaves.
		want int
	}{
		{"Register", creation, func(t *testing.T, s *harness.System, _ harness.Client, n int) (string, error) {
			email := fmt.Sprintf("register-%d@example.com", n)
			_, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: email, Password: harness.Password, FirstName: "Ada"})
			return email, err
		}, 1},
		{"CreateUser", creation, func(t *testing.T, _ *harness.System, admin harness.Client, n int) (string, error) {
			email := fmt.Sprintf("create-%d@example.com", n)
			_, err := admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: email, FirstName: "Ada"}, Password: harness.Password})
			return email, err
		}, 1},
		{"ChangeUserEmail", change, func(t *testing.T, s *harness.System, admin harness.Client, n int) (string, error) {
			email := fmt.Sprintf("changed-%d@example.com", n)
			_, err := admin.Users.ChangeUserEmail(t.Context(), &bffv1.ChangeUserEmailRequest{UserId: s.IdOf(t, fmt.Sprintf("before-%d@example.com", n)), Email: email})
			return email, err
		}, 1},
		{"DeleteUser", deletion, func(t *testing.T, s *harness.System, admin harness.Client, n int) (string, error) {
			email := fmt.Sprintf("delete-%d@example.com", n)
			_, err := admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: s.IdOf(t, email)})
			return email, err
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			crash := harness.NewCrashPoints(t)
			s := harness.Start(t, harness.ThreeProcesses, crash.Option())
			admin := s.Admin(t).Client()
			n := 0
			for at, where := range test.steps {
				n++
				switch test.name {
				case "DeleteUser":
					s.SignUp(t, fmt.Sprintf("delete-%d@example.com", n))
				case "ChangeUserEmail":
					s.SignUp(t, fmt.Sprintf("before-%d@example.com", n))
				}
				crash.Arm(t, at)
				email, err := test.call(t, s, admin, n)
				s.Processes[where].Wait(t)
				s.Start(t, where)
				wantBothOrNeither(t, s, at, email, err, test.want)
			}
			wantSameAccountsInBoth(t, s)
		})
	}
}

// wantBothOrNeither waits until the system has settled and checks it. An
// acknowledged call must have had its effect.
func wantBothOrNeither(t *testing.T, s *harness.System, at, email string, outcome error, want int) {
	t.Helper()
	const state = `
		SELECT (SELECT count(*) FROM auth.accounts WHERE email = $1),
			(SELECT count(*) FROM users.profiles WHERE email = $1 AND first_name = 'Ada'),
			(SELECT count(*) FROM auth.account_log
				WHERE NOT pg_visible_in_snapshot(xid, coalesce((SELECT seen FROM auth.account_readers WHERE service = 'users'), '1:1:')::pg_snapshot))`
	var accounts, profiles, news int
	harness.Eventually(t, 60*time.Second, "killed at "+at, func() error {
		if err := s.Owner.QueryRow(t.Context(), state, email).Scan(&accounts, &profiles, &news); err != nil {
			return err
		}
		if accounts != profiles || news != 0 {
			return fmt.Errorf("%d accounts, %d profiles, %d changes not confirmed", accounts, profiles, news)
		}
		return nil
	})
	if outcome == nil && accounts != want {
		t.Errorf("killed at %s: the call was acknowledged and left %d accounts, want %d", at, accounts, want)
	}
	if outcome != nil && connect.CodeOf(outcome) == connect.CodeInternal {
		t.Errorf("killed at %s: the caller received %v", at, outcome)
	}
}

// internalProcedures are the unary methods that services serve for other services.
func internalProcedures(t *testing.T) (procedures []string) {
	t.Helper()
	for _, service := range app.Services() {
		for _, name := range service.Serves {
			found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
			if err != nil {
				t.Fatal(err)
			}
			methods := found.(protoreflect.ServiceDescriptor).Methods()
			for i := range methods.Len() {
				if method := methods.Get(i); !method.IsStreamingServer() {
					procedures = append(procedures, "/"+name+"/"+string(method.Name()))
				}
			}
		}
	}
	return procedures
}

func TestServicesRefuseOtherCallers(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	for name, token := range map[string]string{"nobody": "", "a user": ada.Access} {
		for _, procedure := range internalProcedures(t) {
			role, _, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), ".") // its proto package begins with it
			inner := &harness.System{URL: "http://" + s.Roles[role].Listen}
			status, _, body := inner.Post(t, procedure, token, `{}`)
			if status != http.StatusUnauthorized || !strings.Contains(body, "INTERNAL_TOKEN_INVALID") {
				t.Errorf("%s on %s: %d %s", name, procedure, status, body)
			}
		}
	}
	// A gateway with another key is refused by the services; its callers are
	// not told that their token is bad.
	s.Processes[harness.RoleBff].Kill()
	role := s.Roles[harness.RoleBff]
	other := harness.StartProcess(t, append(role.Env, "GATEHOUSE_LISTEN="+role.Listen, "GATEHOUSE_INTERNAL_KEY="+strings.Repeat("c", 64)), harness.RoleBff)
	harness.Eventually(t, 10*time.Second, "the other gateway answers", func() error {
		if other.HasEnded() {
			return errors.New("it has ended")
		}
		response, err := http.Get(s.URL + "/livez")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	status, _, body := s.Post(t, "/bff.v1.AuthService/Login", "", `{"email":"ada@example.com","password":"correct horse battery"}`)
	if status != http.StatusInternalServerError || strings.Contains(body, "INTERNAL_TOKEN_INVALID") {
		t.Errorf("Login through a gateway with another key: %d %s; want 500 without the services' reason", status, body)
	}
}

// A gateway that is cut off from auth for long asks about each token, and admits
// nobody whom it can't ask about; a short cut is bridged.
func TestAGatewayCutOffFromAuthFailsClosed(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	ask := func() (int, string) {
		status, _, body := s.Post(t, "/bff.v1.AccountService/ListSessions", ada.Access, `{}`)
		return status, body
	}
	if status, body := ask(); status != http.StatusOK {
		t.Fatalf("before: %d %s", status, body)
	}
	s.Processes[harness.RoleAuth].Kill()
	killed := time.Now()
	pace := time.NewTicker(100 * time.Millisecond) // within the method's rate
	defer pace.Stop()
	for ; time.Since(killed) < 7*time.Second; <-pace.C {
		kept := time.Since(killed) < harness.StaleBound // until then the answer from before is given
		if status, body := ask(); status != http.StatusServiceUnavailable && !(kept && status == http.StatusOK) {
			t.Fatalf("while auth is unreachable: %d %s; want 503", status, body)
		}
	}
	s.Start(t, harness.RoleAuth)
	harness.Eventually(t, 3*time.Second, "heal by itself", func() error {
		if status, body := ask(); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	// A session that ended while the stream was interrupted is known after it reconnects.
	s.Processes[harness.RoleBff].Kill()
	if _, err := s.Owner.Exec(t.Context(), `
		WITH ended AS (UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test' RETURNING id)
		INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + interval '5 minutes' FROM ended`); err != nil {
		t.Fatal(err)
	}
	s.Start(t, harness.RoleBff)
	status, _, body := s.Post(t, "/bff.v1.AccountService/ListSessions", ada.Access, `{}`)
	if status != http.StatusUnauthorized || !strings.Contains(body, "SESSION_ENDED") {
		t.Errorf("on a gateway that just started: %d %s; want 401 SESSION_ENDED", status, body)
	}
}
