package admission

import "slices"

// Kind is a kind of proof: one successful use of an authenticator, of a mailed link or
// code, or of another provider's answer.
type Kind string

const (
	Password     Kind = "password"
	Passkey      Kind = "passkey"
	TOTP         Kind = "totp"
	RecoveryCode Kind = "recovery_code"
	EmailCode    Kind = "email_code"
	Link         Kind = "link"
	Federated    Kind = "federated"
	// FederatedTwo is another provider's answer after a second factor there.
	FederatedTwo Kind = "federated_two"
)

// worth is what a kind of proof is worth.
type worth struct {
	// first and second say whether it may be the first proof and the second one. A
	// mailbox is never the second: it can reset the password, so it would count the
	// same thing twice.
	first, second bool
	// level is that of a session that rests on this proof alone.
	level int
	amr   []string // RFC 8176, and "email", "fed" and "rec"
}

var worths = map[Kind]worth{
	Password:     {first: true, level: 1, amr: []string{"pwd"}},
	Passkey:      {first: true, second: true, level: 2, amr: []string{"pop", "user"}}, // it verifies the user
	TOTP:         {second: true, amr: []string{"otp"}},
	RecoveryCode: {second: true, amr: []string{"rec"}},
	EmailCode:    {first: true, level: 1, amr: []string{"email"}},
	Link:         {first: true, level: 1, amr: []string{"email"}},
	Federated:    {first: true, level: 1, amr: []string{"fed"}},
	FederatedTwo: {first: true, level: 2, amr: []string{"fed"}},
}

// Proof is one proof.
type Proof struct {
	Kind Kind
	// AMR are methods in addition to those of its kind, such as "hwk".
	AMR []string
}

// methods returns the methods of a proof.
func (p Proof) methods() []string { return slices.Concat(worths[p.Kind].amr, p.AMR) }

// mayFollow reports whether a proof of a kind may be given after the methods before,
// which are empty without one.
func mayFollow(before []string, kind Kind) bool {
	_, _, ok := assess(before, Proof{Kind: kind})
	return ok
}

// assess returns the level and the methods of a session whose first proof gave the
// methods before, which are empty without one, and then this one. ok reports whether
// the proof may take this place.
func assess(before []string, proof Proof) (level int, amr []string, ok bool) {
	w := worths[proof.Kind]
	amr = proof.methods()
	switch {
	case len(before) == 0:
		level, ok = w.level, w.first
	default:
		level, ok = 2, w.second
		amr = slices.Concat(before, amr)
	}
	if level == 2 {
		amr = append(amr, "mfa")
	}
	slices.Sort(amr)
	return level, slices.Compact(amr), ok
}
