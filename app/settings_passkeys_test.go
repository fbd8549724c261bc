package app

import (
	"slices"
	"strings"
	"testing"
)

func TestPasskeySettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		publicURL, origins, passkeys, rpID, passkeyOrigins string
		development                                        bool

		on      bool
		wantID  string
		allowed []string // origins that may use passkeys
		related string
		fault   string // the setting that is wrong
		off     string // why auto turned them off
	}{
		{on: true, wantID: "localhost", allowed: []string{"http://localhost:8001"}},
		{development: true, on: true, wantID: "localhost", allowed: []string{"http://localhost:8001", "http://localhost:*"}},
		{publicURL: "https://auth.example.com", on: true, wantID: "auth.example.com", allowed: []string{"https://auth.example.com"}},
		{publicURL: "https://auth.example.com", rpID: "example.com", origins: "https://app.example.com,https://other.example,http://app.example.com", on: true, wantID: "example.com", allowed: []string{"https://auth.example.com", "https://app.example.com"}},
		{publicURL: "https://auth.example.com", passkeyOrigins: "https://auth.example.com, https://example.de, android:apk-key-hash:2jmj7l5rSw0yVb-vlWAYkK-YBwk", on: true, wantID: "auth.example.com",
			allowed: []string{"https://auth.example.com", "https://example.de", "android:apk-key-hash:2jmj7l5rSw0yVb-vlWAYkK-YBwk"}, related: `{"origins":["https://example.de"]}`},
		{publicURL: "https://auth.example.com", passkeys: "off"},
		{publicURL: "http://127.0.0.1:8001", off: "IP address"},
		{publicURL: "http://auth.example.com", off: "not https"},
		{publicURL: "https://intranet", off: "two labels"},
		{publicURL: "http://127.0.0.1:8001", passkeys: "on", fault: "GATEHOUSE_PASSKEYS"},
		{publicURL: "https://auth.example.com", passkeys: "yes", fault: "GATEHOUSE_PASSKEYS"},
		{publicURL: "https://auth.example.com", rpID: "com", fault: "GATEHOUSE_PASSKEY_RP_ID"},
		{publicURL: "https://auth.example.com", rpID: "other.example", fault: "GATEHOUSE_PASSKEY_RP_ID"},
		{publicURL: "https://me.github.io", rpID: "github.io", fault: "GATEHOUSE_PASSKEY_RP_ID"},
		{publicURL: "https://auth.example.com", passkeyOrigins: "http://example.de", fault: "GATEHOUSE_PASSKEY_ORIGINS"},
		{publicURL: "https://auth.example.com", passkeyOrigins: "example.de", fault: "GATEHOUSE_PASSKEY_ORIGINS"},
		{publicURL: "https://auth.example.com", passkeyOrigins: "https://a.de,https://b.de,https://c.de,https://d.de,https://e.de,https://f.de", fault: "GATEHOUSE_PASSKEY_ORIGINS"},
	} {
		var m problems
		s := &settings{}
		if test.passkeys == "" {
			test.passkeys = "auto"
		}
		flags := &passkeyFlags{Passkeys: test.passkeys, PasskeyRPID: test.rpID, PasskeyOrigins: test.passkeyOrigins}
		s.add(&publicFlags{PublicURL: test.publicURL}, &originFlags{Origins: test.origins, development: test.development}, flags)
		s.checkValues(&m)
		if test.fault != "" {
			if text := m.Error(); !strings.Contains(text, test.fault+":") || len(m) != 1 {
				t.Errorf("%+v: said %q", test, text)
			}
			continue
		}
		if len(m) > 0 || (flags.party != nil) != test.on || !strings.Contains(flags.offBecause, test.off) || (flags.offBecause != "") != (test.off != "") {
			t.Errorf("%+v: on %t, off because %q, said %v", test, flags.party != nil, flags.offBecause, m)
		}
		if test.on && (flags.party.ID() != test.wantID || !slices.Equal(flags.party.Origins(), test.allowed) || string(flags.related) != test.related) {
			t.Errorf("%+v: RP ID %q, origins %q, related %s", test, flags.party.ID(), flags.party.Origins(), flags.related)
		}
	}
}
