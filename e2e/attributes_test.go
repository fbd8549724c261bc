package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

const attributesSchema = `{
	"properties": {
		"attributes": {"properties": {"hobby": {"type": "string", "pattern": "^[a-z]+$"}}},
		"app_attributes": {"properties": {"plan": {"type": "string"}}}
	}
}`

// The values of attributes are in the profile and in what its person reads, and nowhere
// else: not in the audit, whose events name keys, not in tokens and not in logs.
func TestValuesOfAttributesStayInTheProfile(t *testing.T) {
	t.Parallel()
	schema := filepath.Join(t.TempDir(), "user.json")
	if err := os.WriteFile(schema, []byte(attributesSchema), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape, harness.WithSettings("GATEHOUSE_USER_SCHEMA="+schema, "GATEHOUSE_LOG_LEVEL=debug"))
			ada, admin := s.SignUp(t, "ada@example.com"), s.Admin(t)
			change := func(who *harness.Person, path string, values map[string]any) error {
				user := &bffv1.User{Id: ada.ID}
				if path == "attributes" {
					user.Attributes = object(t, values)
				} else {
					user.AppAttributes = object(t, values)
				}
				_, err := who.Client().Users.UpdateUser(t.Context(), &bffv1.UpdateUserRequest{User: user, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}}})
				return err
			}
			if err := change(ada, "attributes", map[string]any{"hobby": "plumbago", "den": map[string]any{"wall": "verbena"}}); err != nil {
				t.Fatal(err)
			}
			if err := change(admin, "app_attributes", map[string]any{"plan": "hydrangea"}); err != nil {
				t.Fatal(err)
			}
			harness.WantReason(t, change(ada, "app_attributes", map[string]any{"plan": "ceanothus"}), connect.CodePermissionDenied, "APP_ATTRIBUTES_READ_ONLY")
			harness.WantReason(t, change(ada, "attributes", map[string]any{"hobby": "CEANOTHUS"}), connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
			harness.WantReason(t, change(ada, "attributes", map[string]any{"hobby": "ceanothus\x00"}), connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
			harness.WantReason(t, change(ada, "attributes", map[string]any{"den": strings.Repeat("ceanothus", 2000)}), connect.CodeInvalidArgument, "ATTRIBUTES_TOO_LARGE")
			for _, body := range []string{`{"user":{"attributes":"ceanothus"}}`, `{"user":{"attributes":{"hobby":ceanothus}}}`, `{"user":{"attributes":["ceanothus"]}}`} {
				if status, _, answer := s.Post(t, "/bff.v1.AccountService/UpdateMe", ada.Access, body); status != 400 {
					t.Errorf("%s: %d %s", body, status, answer)
				}
			}
			wantAudited(t, s, ada)
			if err := ada.Renew(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			wantOnlyInTheProfile(t, s, ada)

			if _, err := ada.Client().Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
				t.Fatal(err)
			}
			untilRelayed(t, s)
			for _, trace := range []string{"plumbago", "verbena", "hydrangea", "hobby", "attributes.plan"} {
				if where := rowsWith(t, s, trace); len(where) > 0 {
					t.Errorf("after the deletion %q still stands in %q", trace, where)
				}
			}
		})
	}
}

// wantAudited checks that the audit names the changed keys, and who changed them.
func wantAudited(t *testing.T, s *harness.System, ada *harness.Person) {
	t.Helper()
	var events []*bffv1.AuditEvent
	harness.Eventually(t, 30*time.Second, "both changes are in the audit", func() error {
		page, err := ada.Client().Account.ListMyAuditEvents(t.Context(), &bffv1.ListMyAuditEventsRequest{})
		if err != nil {
			return err
		}
		events = slices.DeleteFunc(page.GetEvents(), func(e *bffv1.AuditEvent) bool { return e.GetEvent() != "account.attributes.change" })
		if len(events) != 2 {
			return fmt.Errorf("%d events", len(events))
		}
		return nil
	})
	admins, own := events[0], events[1]
	if !slices.Equal(own.GetChanged(), []string{"attributes.den", "attributes.hobby"}) || own.GetActorId() != ada.ID || own.GetIpAddress() == "" || own.GetOutcome() != "succeeded" {
		t.Errorf("the person's change is audited as %v", own)
	}
	if !slices.Equal(admins.GetChanged(), []string{"app_attributes.plan"}) || admins.GetActorId() == ada.ID || admins.GetIpAddress() != "" {
		t.Errorf("the administrator's change is audited for the person as %v", admins)
	}
	harness.Eventually(t, 30*time.Second, "the events are confirmed", func() error {
		if n := s.Count(t, "SELECT count(*) FROM users.audit_outbox"); n > 0 {
			return fmt.Errorf("%d are pending", n)
		}
		return nil
	})
	if n := s.Count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'account.attributes.change'"); n != 2 {
		t.Errorf("the log has %d events of changed attributes, want 2", n)
	}
}

func wantOnlyInTheProfile(t *testing.T, s *harness.System, ada *harness.Person) {
	t.Helper()
	export, err := ada.Client().Account.ExportMe(t.Context(), &bffv1.ExportMeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(ada.Access, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"plumbago", "verbena", "hydrangea", "ceanothus"} {
		stored := value != "ceanothus"
		if where := rowsWith(t, s, value); len(where) > 0 != stored || stored && (len(where) != 1 || !strings.HasPrefix(where[0], "users.profiles ")) {
			t.Errorf("%q stands in %q", value, where)
		}
		if got := strings.Contains(export.String(), value); got != stored {
			t.Errorf("the export has %q: %v", value, got)
		}
		if strings.Contains(string(claims), value) {
			t.Errorf("the access token has %q: %s", value, claims)
		}
		for name, process := range s.Processes {
			for line := range strings.Lines(process.Stdout.String() + process.Stderr.String()) {
				if strings.Contains(strings.ToLower(line), value) {
					t.Errorf("%s logged %q: %s", name, value, line)
				}
			}
		}
	}
}

func TestAFaultyUserSchemaRefusesTheStart(t *testing.T) {
	t.Parallel()
	schema := filepath.Join(t.TempDir(), "user.json")
	if err := os.WriteFile(schema, []byte("{\n  \"properties\": {\n    \"attributes\": {\"type\": \"objekt\"}\n  }\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for setting, want := range map[string]string{
		schema:                   "GATEHOUSE_USER_SCHEMA: " + schema + ":3:28: /properties/attributes/type: ",
		schema + "-that-is-away": "GATEHOUSE_USER_SCHEMA: " + schema + "-that-is-away can't be read: ",
	} {
		status, said := harness.RunCommand(t, []string{"GATEHOUSE_USER_SCHEMA=" + setting}, "users")
		if status != harness.ExitUsage || !strings.Contains(said, want) {
			t.Errorf("users with %s: exit status %d, want %d and %q:\n%s", setting, status, harness.ExitUsage, want, said)
		}
	}
}

func object(t *testing.T, values map[string]any) *structpb.Struct {
	t.Helper()
	made, err := structpb.NewStruct(values)
	if err != nil {
		t.Fatal(err)
	}
	return made
}
