package e2e

import (
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// listPassword adds a password to a list of breached ones, as the downloader of Have I Been
// Pwned writes it, seen so many times; its file is there in any case.
func listPassword(t *testing.T, folder, password string, seen int) {
	t.Helper()
	hash := fmt.Sprintf("%X", sha1.Sum([]byte(password)))
	line := fmt.Sprintf("%s:%d\r\n", hash[5:], seen)
	if err := os.WriteFile(filepath.Join(folder, hash[:5]+".txt"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAListedPasswordIsRefusedOnEveryWay(t *testing.T) {
	t.Parallel()
	const breached, other = "seven purple elephants", "nine quiet lighthouses"
	folder := t.TempDir()
	listPassword(t, folder, breached, 111)
	for _, known := range []string{harness.Password, harness.AdminPassword, other} {
		listPassword(t, folder, known, 0) // padding, which is no breach
	}
	if err := os.WriteFile(filepath.Join(folder, "00000.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_PASSWORD_LIST="+folder))
	_, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "eve@example.com", Password: breached})
	harness.WantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_BREACHED")

	ada := s.SignUp(t, "ada@example.com")
	change := func(password string) error {
		_, err := ada.Client().Account.ChangePassword(t.Context(), &bffv1.ChangePasswordRequest{CurrentPassword: harness.Password, NewPassword: password})
		return err
	}
	harness.WantReason(t, change(breached), connect.CodeInvalidArgument, "PASSWORD_BREACHED")
	if err := change(other); err != nil {
		t.Errorf("another password: %v", err)
	}
	_, err = s.Admin(t).Client().Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: "bob@example.com"}, Password: breached})
	harness.WantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_BREACHED")
}
