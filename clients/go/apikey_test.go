package gatehouse_test

import (
	"testing"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

func TestAKeyAuthorizesCallsWithoutASession(t *testing.T) {
	t.Parallel()
	owner := created(t, gatehouse.NewMemoryStore())
	made, err := owner.Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "Script", Scopes: []string{"me:read"}})
	if err != nil {
		t.Fatal(err)
	}
	script, err := gatehouse.New(gatehouse.Config{URL: gatewayURL, APIKey: made.GetSecret()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := script.Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
		t.Errorf("GetMe: %v", err)
	}
	if _, err := script.Account.ListKeys(t.Context(), &bffv1.ListKeysRequest{}); gatehouse.Reason(err) != "SCOPE_REQUIRED" {
		t.Errorf("ListKeys: got %v, want SCOPE_REQUIRED", err)
	}
	if token, err := script.Token(t.Context()); err != nil || token != made.GetSecret() {
		t.Errorf("Token: got %q, %v, want the key", token, err)
	}
}
