package auth

import (
	"gatehouse/auth/accounts"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/federation"
	"gatehouse/auth/relay"
)

// waysIn returns the ways to sign in that a configuration accepts.
func waysIn(config Config) accounts.WaysIn {
	var found accounts.WaysIn
	if config.Passkeys != nil {
		found.RPID = config.Passkeys.ID()
	}
	for _, p := range config.Providers {
		found.Issuers = append(found.Issuers, p.IssuerPattern())
	}
	return found
}

// newFederation returns the service of other providers, and lets challenges link what it
// finds.
func newFederation(config Config, accounts *accounts.Store, sessions *sessions, codes *emailcode.Service, relay *relay.Relay) *federation.Service {
	s := &federation.Service{
		DB: sessions.db, Desk: sessions.Desk, Accounts: accounts, Passwords: sessions.passwords, Mails: accounts.Mails, Codes: codes, Log: sessions.log,
		Providers: config.Providers, Site: config.Issuer, Deliver: relay.Deliver,
	}
	sessions.Verifiers, sessions.LinkPending = append(sessions.Verifiers, s.Verifier()), s.LinkPending
	return s
}
