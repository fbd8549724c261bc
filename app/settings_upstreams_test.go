package app

import (
	"strings"
	"testing"
)

// The other roles have the internal key, so one of them could sign identity tokens with it.
func TestTheIdentityKeyIsForGatewaysAlone(t *testing.T) {
	t.Parallel()
	own, shared := strings.Repeat("0b", keyLength), strings.Repeat("0a", keyLength)
	const problem = "GATEHOUSE_IDENTITY_KEY: is the internal key, which other roles have too"
	for name, test := range map[string]struct {
		key     string
		refused bool
	}{
		"a key of its own":           {own, false},
		"the internal key":           {shared, true},
		"the internal key as former": {own + "," + shared, true},
		"none":                       {"", false},
	} {
		gateway, err := serviceNamed(roleBff)
		if err != nil {
			t.Fatal(err)
		}
		settings := map[string]string{"GATEHOUSE_INTERNAL_KEY": shared, "GATEHOUSE_IDENTITY_KEY": test.key}
		for _, call := range gateway.Calls {
			settings[strings.ToUpper(call.Service)+"_URL"] = "http://localhost:1"
		}
		err = newSettings(roleBff, gateway).parse(settings)
		if refused := err != nil && strings.Contains(err.Error(), problem); refused != test.refused || err != nil && !test.refused {
			t.Errorf("%s: got %v, want a refusal: %v", name, err, test.refused)
		}
	}
}
