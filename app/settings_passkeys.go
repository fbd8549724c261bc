package app

import (
	"fmt"
	"net/url"

	"gatehouse/internal/webauthn"
)

// originFlags are the web origins of the pages that call.
type originFlags struct {
	Origins string `env:"GATEHOUSE_ORIGINS" placeholder:"LIST" help:"Allow browsers to call from these web origins, comma-separated; http://localhost:* allows all ports of this machine. The public URL's if empty; in up on localhost, also http://localhost:* and http://127.0.0.1:*."`

	// development also allows the origins of development servers on this
	// machine; set by up.
	development bool

	origins []string
}

func (f *originFlags) check(c *checks) {
	f.origins = parseOrigins(c.problems, f.Origins)
	if len(f.origins) > 0 {
		return
	}
	publicURL := find[*publicFlags](c.settings).url
	f.origins = []string{publicURL}
	if f.development && isDevelopment(publicURL) {
		f.origins = append(f.origins, developmentOrigins...)
	}
}

// passkeyFlags say where passkeys may be used.
type passkeyFlags struct {
	Passkeys       string `env:"GATEHOUSE_PASSKEYS" default:"auto" placeholder:"auto|on|off" help:"Let people sign in with passkeys (on) or hide and refuse them (off); auto turns them on where browsers offer them: the public URL is https with a host name, or localhost."`
	PasskeyRPID    string `env:"GATEHOUSE_PASSKEY_RP_ID" placeholder:"DOMAIN" help:"Register passkeys for this domain: the host of the public URL or a parent domain of it. It is permanent: with another one, nobody's passkeys work. The host of the public URL if empty."`
	PasskeyOrigins string `env:"GATEHOUSE_PASSKEY_ORIGINS" placeholder:"LIST" help:"Let pages of these web origins use passkeys, and apps such as android:apk-key-hash:…, comma-separated. If empty, the origin of the public URL and those of GATEHOUSE_ORIGINS under the RP ID. Pages of other domains need https, and at most five names."`

	rpID    string
	party   *webauthn.Party // nil if passkeys are off
	related []byte          // the document of related origins; nil for none
	// offBecause is why auto turned passkeys off.
	offBecause string
}

func (f *passkeyFlags) check(c *checks) {
	publicURL := find[*publicFlags](c.settings).url
	f.rpID = f.PasskeyRPID
	if parsed, err := url.Parse(publicURL); err == nil && f.rpID == "" {
		f.rpID = parsed.Hostname()
	}
	err := webauthn.CheckID(f.rpID, publicURL)
	switch f.Passkeys {
	case "off":
		return
	case "on", "auto":
	default:
		c.add("GATEHOUSE_PASSKEYS", fmt.Sprintf("%q is not known", f.Passkeys), "set it to auto, on or off")
		return
	}
	if err != nil {
		f.refuse(c, err)
		return
	}
	origins := f.origins(c, publicURL)
	if len(origins) == 0 {
		return // reported
	}
	if f.related, err = webauthn.RelatedOrigins(f.rpID, origins); err != nil {
		c.add("GATEHOUSE_PASSKEY_ORIGINS", err.Error(), "list https origins of at most five names, such as https://example.de")
		return
	}
	if f.party, err = webauthn.New(webauthn.Config{ID: f.rpID, Name: f.rpID, Origins: origins}); err != nil {
		c.add("GATEHOUSE_PASSKEY_ORIGINS", err.Error(), "correct the list")
	}
}

// refuse reports that the RP ID does not fit the public URL: a mistake where passkeys
// or an RP ID were asked for.
func (f *passkeyFlags) refuse(c *checks, err error) {
	switch {
	case f.PasskeyRPID != "":
		c.add("GATEHOUSE_PASSKEY_RP_ID", err.Error(), "set it to the host of GATEHOUSE_PUBLIC_URL or a parent domain, or leave it empty")
	case f.Passkeys == "on":
		c.add("GATEHOUSE_PASSKEYS", err.Error(), "begin GATEHOUSE_PUBLIC_URL with https:// and a host name, or set GATEHOUSE_PASSKEYS to auto or off")
	default:
		f.offBecause = err.Error()
	}
}

// origins are those that may use passkeys.
func (f *passkeyFlags) origins(c *checks, publicURL string) []string {
	if f.PasskeyOrigins == "" {
		found := []string{publicURL}
		for _, origin := range find[*originFlags](c.settings).origins {
			if origin != publicURL && webauthn.Under(f.rpID, origin) {
				found = append(found, origin)
			}
		}
		return found
	}
	var found []string
	for _, item := range list(f.PasskeyOrigins) {
		if webauthn.IsApp(item) {
			found = append(found, item)
		} else if origin, ok := c.problems.webOrigin("GATEHOUSE_PASSKEY_ORIGINS", item); ok {
			found = append(found, origin)
		}
	}
	return found
}
