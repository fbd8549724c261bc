package upstream

import (
	"crypto/sha256"
	"crypto/subtle"
	"os"
	"slices"
	"strings"
)

const (
	// contractPackage has the services by which the gateway and a service deal with each
	// other.
	contractPackage = "service.v1"
	personService   = contractPackage + ".PersonService"
	changeService   = contractPackage + ".ChangeService"
)

// Fields of an account that events carry only where lifecycle_fields lists them.
const (
	FieldEmail      = "email"
	FieldCreateTime = "create_time"
)

const (
	// minCredential is the least length of a secret: 128 bits in hex.
	minCredential = 32
	// maxCredentials is how many secrets count at once: a new one and the former one.
	maxCredentials = 2
)

// credential is the hash of a secret. A secret has too many bits to be guessed, so that
// the hash needs no salt and no work factor.
type credential [sha256.Size]byte

// checkLifecycle checks what an entry says about account events and data about people,
// and reads its credentials.
func (l *loader) checkLifecycle(u *Upstream) {
	for _, field := range u.LifecycleFields {
		if field != FieldEmail && field != FieldCreateTime {
			l.problems.add(u.line, "the fields are "+FieldEmail+" and "+FieldCreateTime, "upstream %s lists the field %q in lifecycle_fields", u.Name, field)
		}
	}
	if len(u.LifecycleFields) > 0 && u.Lifecycle != "all" {
		l.problems.add(u.line, "set lifecycle: all, or leave the fields out", "upstream %s lists lifecycle_fields, and does not get events of changes", u.Name)
	}
	if u.Person && u.Lifecycle == "" {
		l.problems.add(u.line, "set lifecycle: deletions, and erase the data of deleted accounts", "upstream %s holds data about people, and does not follow the deletions of accounts, by which they are erased", u.Name)
	}
	if u.CredentialFile == "" {
		if u.Lifecycle != "" {
			l.problems.add(u.line, "add credential_file: the file of a random secret, such as openssl rand -hex 32 writes", "upstream %s wants account events and has no credential to read them with", u.Name)
		}
		return
	}
	text, err := os.ReadFile(u.CredentialFile)
	if err != nil {
		l.problems.add(u.line, "name a file that this process can read", "the credential_file of %s can't be read", u.Name)
		return
	}
	secrets := strings.Fields(string(text))
	if len(secrets) == 0 || len(secrets) > maxCredentials {
		l.problems.add(u.line, "write one with openssl rand -hex 32; during a change, the new one and the former one, each on a line", "the credential_file of %s holds %d secrets", u.Name, len(secrets))
	}
	for _, secret := range secrets {
		if len(secret) < minCredential {
			l.problems.add(u.line, "write one with openssl rand -hex 32", "the credential_file of %s holds a secret of less than %d characters", u.Name, minCredential)
		}
		u.credentials = append(u.credentials, sha256.Sum256([]byte(secret)))
	}
}

// checkCredentials finds secrets that two upstreams share.
func (l *loader) checkCredentials() {
	owners := map[credential]string{}
	for _, u := range l.set.Upstreams {
		for _, one := range u.credentials {
			if owner := owners[one]; owner != "" && owner != u.Name {
				l.problems.add(u.line, "write one for each with openssl rand -hex 32", "upstreams %s and %s have the same credential", owner, u.Name)
			}
			owners[one] = u.Name
		}
	}
}

// Holding returns the upstream whose credential a secret is; nil if it is none's.
func (s *Set) Holding(secret string) *Upstream {
	if s == nil {
		return nil
	}
	hash := sha256.Sum256([]byte(secret))
	var found *Upstream
	for _, u := range s.Upstreams {
		for _, one := range u.credentials {
			if subtle.ConstantTimeCompare(one[:], hash[:]) == 1 {
				found = u
			}
		}
	}
	return found
}

// Following returns the upstreams that read account events.
func (s *Set) Following() []*Upstream {
	if s == nil {
		return nil
	}
	var following []*Upstream
	for _, u := range s.Upstreams {
		if u.Lifecycle != "" {
			following = append(following, u)
		}
	}
	return following
}

// DeletionsOnly reports whether the upstream gets only the events of deletions.
func (u *Upstream) DeletionsOnly() bool { return u.Lifecycle == "deletions" }

// Discloses reports whether its events carry a field of an account.
func (u *Upstream) Discloses(field string) bool { return slices.Contains(u.LifecycleFields, field) }

// Tells reports whether the upstream has a change feed.
func (u *Upstream) Tells() bool { return u.Serves(changeService) }

// Kinds returns the kinds of the cache tags of its methods, sorted.
func (u *Upstream) Kinds() []string { return u.kinds }
