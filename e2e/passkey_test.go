package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mailtest"
	"gatehouse/internal/passkeytest"
)

const passkeyPage = "https://example.de" // a related origin

// withRelatedOrigin lets pages of another domain use the passkeys of example.com.
var withRelatedOrigin = []string{
	"GATEHOUSE_PUBLIC_URL=https://auth.example.com", "GATEHOUSE_PASSKEY_RP_ID=example.com",
	"GATEHOUSE_PASSKEY_ORIGINS=https://auth.example.com," + passkeyPage,
}

// The first second factor of an administrator takes a mailed code also if it is a
// passkey, and the export names the passkey.
func TestAnAdministratorRegistersAPasskeyWithAMailedCode(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{})
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings(append([]string{"SMTP_URL=" + server.URL(), "GATEHOUSE_SECOND_FACTOR_ROLES=admin"}, withRelatedOrigin...)...))
	admin := s.Admin(t)
	begun, err := admin.Client().Account.BeginPasskeyRegistration(t.Context(), &bffv1.BeginPasskeyRegistrationRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !begun.GetEmailCodeSent() {
		t.Error("the answer does not say that a code was mailed")
	}
	options, err := protojson.Marshal(begun.GetOptions())
	if err != nil {
		t.Fatal(err)
	}
	var response structpb.Struct
	key := passkeytest.New(t, passkeytest.ES256)
	if err := protojson.Unmarshal(key.Register(t, options, passkeyPage), &response); err != nil {
		t.Fatal(err)
	}
	finish := func(code string) (*bffv1.FinishPasskeyRegistrationResponse, error) {
		return admin.Client().Account.FinishPasskeyRegistration(t.Context(), &bffv1.FinishPasskeyRegistrationRequest{
			RegistrationToken: begun.GetRegistrationToken(), Response: &response, Name: "Laptop", EmailCode: code,
		})
	}
	_, err = finish("")
	harness.WantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	var code string
	harness.Eventually(t, 30*time.Second, "get the mail with the code", func() error {
		for _, mail := range server.Received() {
			if code = regexp.MustCompile(`\b[B-DF-HJ-NP-TV-Z2-9]{8}\b`).FindString(mail.Text); code != "" {
				return nil
			}
		}
		return fmt.Errorf("the server has %v", server.Received())
	})
	finished, err := finish(code)
	if err != nil {
		t.Fatalf("with the mailed code %s: %v", code, err)
	}
	admin.Take(finished.GetTokens())
	if _, err := admin.Client().Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{}); err != nil {
		t.Errorf("after the registration: %v", err)
	}
	status, _, export := s.Post(t, "/bff.v1.AccountService/ExportMe", admin.Access, "{}")
	if status != http.StatusOK || !strings.Contains(export, `"name":"Laptop"`) || strings.Contains(export, "publicKey") {
		t.Errorf("ExportMe answers %d %s, want the passkey without its key", status, export)
	}
}

// Browsers fetch the list of related origins, which are those outside of the RP ID, from
// the host of the RP ID.
func TestRelatedOriginsAreServed(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess, harness.WithSettings(withRelatedOrigin...))
	answer, err := http.Get(s.URL + "/.well-known/webauthn")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var document struct{ Origins []string }
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	if want := []string{passkeyPage}; answer.StatusCode != http.StatusOK || !reflect.DeepEqual(document.Origins, want) {
		t.Errorf("got %d and the origins %q, want 200 and %q", answer.StatusCode, document.Origins, want)
	}
	if kind, cache := answer.Header.Get("Content-Type"), answer.Header.Get("Cache-Control"); kind != "application/json" || !strings.Contains(cache, "max-age") {
		t.Errorf("got the content type %q and Cache-Control %q", kind, cache)
	}
	// Without other domains there is nothing to serve.
	alone := harness.Start(t, harness.OneProcess)
	if status, body := harness.Get(t, alone.URL+"/.well-known/webauthn"); status != http.StatusNotFound {
		t.Errorf("without related origins: got %d %s, want 404", status, body)
	}
}
