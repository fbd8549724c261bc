package app

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
	"gatehouse/bff"
	"gatehouse/internal/email"
	"gatehouse/internal/limit"
	post "gatehouse/internal/mail"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
)

// Settings come in groups, and a command has the groups that it reads. Each is
// text until its group's parse method has checked it, so that every mistake is
// reported at once.

// mistake is one setting's fault and how to mend it.
type mistake struct{ setting, fault, mend string }

// mistakes is everything that is wrong with the settings.
type mistakes []mistake

func (m mistakes) Error() string {
	var text strings.Builder
	text.WriteString("the settings can't be used:")
	for _, one := range m {
		text.WriteString("\n  ")
		if one.setting != "" {
			text.WriteString(one.setting + ": ")
		}
		text.WriteString(one.fault)
		if one.mend != "" {
			text.WriteString(": " + one.mend)
		}
	}
	return text.String()
}

func (m *mistakes) add(setting, fault, mend string) {
	*m = append(*m, mistake{setting, fault, mend})
}

// err is nil when there are none.
func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return m
}

// databaseFlags name the Postgres to prepare.
type databaseFlags struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"Postgres, as a user who may create roles and databases."`
	AtlasDevURL string `env:"ATLAS_DEV_URL" placeholder:"URL" help:"A scratch database for planning the schema, if that user may not create one."`
}

func (f databaseFlags) parse(m *mistakes, needed bool) {
	checkDatabaseURL(m, "DATABASE_URL", f.DatabaseURL, needed)
	checkDatabaseURL(m, "ATLAS_DEV_URL", f.AtlasDevURL, false)
}

// authDatabaseFlags name auth's own login.
type authDatabaseFlags struct {
	AuthDatabaseURL string `env:"AUTH_DATABASE_URL" placeholder:"URL" help:"Postgres, as auth's own role."`
}

// usersDatabaseFlags name users' own login.
type usersDatabaseFlags struct {
	UsersDatabaseURL string `env:"USERS_DATABASE_URL" placeholder:"URL" help:"Postgres, as users' own role."`
}

func checkDatabaseURL(m *mistakes, name, value string, needed bool) {
	if value == "" {
		if needed {
			m.add(name, "is not set", "give it a URL such as postgres://user:password@host:5432/gatehouse")
		}
		return
	}
	if strings.Contains(value, "://") && !strings.HasPrefix(value, "postgres://") && !strings.HasPrefix(value, "postgresql://") {
		m.add(name, "is not a Postgres URL", "begin it with postgres://")
	}
}

// internalFlags are what services know each other by.
type internalFlags struct {
	InternalKey string `env:"GATEHOUSE_INTERNAL_KEY" placeholder:"HEX" help:"32 bytes in hex that all roles share; an older one may follow after a comma."`
}

func (f internalFlags) parse(m *mistakes) rpc.InternalKeys {
	return parseKeys(m, "GATEHOUSE_INTERNAL_KEY", f.InternalKey)
}

// secretFlags are what auth seals with.
type secretFlags struct {
	SecretKey string `env:"GATEHOUSE_SECRET_KEY" placeholder:"HEX" help:"32 bytes in hex that seal signing keys and make refresh tokens; an older one may follow after a comma."`
}

func (f secretFlags) parse(m *mistakes) [][]byte {
	return parseKeys(m, "GATEHOUSE_SECRET_KEY", f.SecretKey)
}

const keyLength = 32

func parseKeys(m *mistakes, name, text string) [][]byte {
	const mend = "give this system's own; only for a new system, make one with: openssl rand -hex 32"
	if text == "" {
		m.add(name, "is not set", mend)
		return nil
	}
	var keys [][]byte
	for part := range strings.SplitSeq(text, ",") {
		key, err := hex.DecodeString(strings.TrimSpace(part))
		// The value is a secret: it isn't shown.
		if err != nil || len(key) != keyLength {
			m.add(name, "is not 32 bytes in hex", mend)
			return nil
		}
		keys = append(keys, key)
	}
	if len(keys) > 2 {
		m.add(name, "holds more than two keys", "give the new one, a comma and the old one")
	}
	return keys
}

// publicFlags say where people find the gateway.
type publicFlags struct {
	PublicURL string `env:"GATEHOUSE_PUBLIC_URL" placeholder:"URL" help:"Where browsers find the gateway: issuer of tokens. http://localhost:8001 if empty, or with up, the port that it listens on."`
}

// parse checks the public URL. Without one it is on localhost: at the port of
// listen, or where that is empty, at the gateway's usual one.
func (f publicFlags) parse(m *mistakes, listen string) string {
	if f.PublicURL == "" {
		port := "8001"
		if _, own, err := net.SplitHostPort(listen); err == nil {
			port = own
		}
		return "http://localhost:" + port
	}
	origin, ok := m.webOrigin("GATEHOUSE_PUBLIC_URL", f.PublicURL)
	if !ok {
		return strings.TrimSuffix(f.PublicURL, "/")
	}
	return origin
}

// policyFlags narrow what the schema allows.
type policyFlags struct {
	Policy string `env:"GATEHOUSE_POLICY" placeholder:"LIST" help:"Tighter time limits and rates, one method to a line or between semicolons, such as: bff.v1.AuthService/Login limit=5s rate=5/m burst=5."`
}

func (f policyFlags) parse(m *mistakes) string {
	if f.Policy == "" {
		return ""
	}
	if _, err := bff.PolicyOf(f.Policy); err != nil {
		for fault := range strings.Lines(err.Error()) {
			m.add("GATEHOUSE_POLICY", strings.TrimSpace(fault), "")
		}
	}
	return f.Policy
}

// edgeFlags are the gateway's.
type edgeFlags struct {
	publicFlags
	policyFlags
	Origins        string        `env:"GATEHOUSE_ORIGINS" placeholder:"LIST" help:"Web origins that may call from a browser, comma-separated; http://localhost:* stands for all ports of this machine. The public URL's if empty; in up on localhost, also http://localhost:* and http://127.0.0.1:*."`
	Cookies        string        `env:"GATEHOUSE_COOKIES" default:"auto" placeholder:"auto|secure|localhost" help:"How session cookies are protected: for https alone, or for plain http on localhost alone; auto goes by the public URL."`
	RedisURL       string        `env:"REDIS_URL" placeholder:"URL" help:"A Redis or Valkey through which gateways share what callers have used of their rates, such as redis://host:6379 or rediss:// with TLS. Each goes by itself if empty."`
	CacheBytes     int64         `env:"GATEHOUSE_CACHE_BYTES" default:"67108864" placeholder:"BYTES" help:"How much memory kept answers may take; 0 keeps none."`
	QueueTarget    time.Duration `env:"GATEHOUSE_QUEUE_TARGET" default:"250ms" placeholder:"TIME" help:"Refuse calls with 503 once they wait longer than this in a queue that does not go away: 10ms to 5s."`
	TrustedProxies string        `env:"GATEHOUSE_TRUSTED_PROXIES" placeholder:"LIST" help:"Networks whose X-Forwarded-For is believed, comma-separated; none if empty. Networks that hold every address are refused."`

	// development allows pages of development servers; set by up.
	development bool
}

// edge is edgeFlags checked.
type edge struct {
	publicURL string
	origins   []string
	cookies   bff.CookieProfile
	proxies   []netip.Prefix
	policy    string
	redisURL  string
	throttle  bool // as throttleFlags say
	cache     int64
	// queueTarget is how long calls may wait for their turn.
	queueTarget time.Duration
}

// conns bound the gateway's connections; nil without throttling. A proxy's
// connections are those of many.
func (e edge) conns() *serve.ConnLimits {
	if !e.throttle {
		return nil
	}
	return &serve.ConnLimits{Trusted: e.proxies}
}

const (
	leastQueueTarget = 10 * time.Millisecond
	mostQueueTarget  = 5 * time.Second
)

func (f edgeFlags) parse(m *mistakes, listen string) edge {
	checked := edge{publicURL: f.publicFlags.parse(m, listen), policy: f.policyFlags.parse(m), cache: f.CacheBytes, queueTarget: f.QueueTarget}
	if f.QueueTarget < leastQueueTarget || f.QueueTarget > mostQueueTarget {
		m.add("GATEHOUSE_QUEUE_TARGET", fmt.Sprintf("%s is not a time from %s to %s", f.QueueTarget, leastQueueTarget, mostQueueTarget), "give one such as 250ms")
	}
	if f.CacheBytes == 0 {
		checked.cache = bff.CacheNothing
	} else if f.CacheBytes < 1<<20 {
		m.add("GATEHOUSE_CACHE_BYTES", fmt.Sprintf("%d is too little to keep anything in", f.CacheBytes), "give at least 1048576, or 0 to keep nothing")
	}
	checked.cookies = bff.CookieProfile(f.Cookies)
	switch checked.cookies {
	case bff.CookiesAuto, bff.CookiesSecure:
	case bff.CookiesLocalhost:
		if parsed, err := url.Parse(checked.publicURL); err == nil && !bff.IsLoopback(parsed.Hostname()) {
			m.add("GATEHOUSE_COOKIES", fmt.Sprintf("localhost is not for %q, where anybody on the way could read the cookies", checked.publicURL), "set it to auto, and have GATEHOUSE_PUBLIC_URL begin with https://")
		}
	default:
		m.add("GATEHOUSE_COOKIES", fmt.Sprintf("%q is not known", f.Cookies), "set it to auto, secure or localhost")
	}
	checked.origins = parseOrigins(m, f.Origins)
	if len(checked.origins) == 0 {
		checked.origins = []string{checked.publicURL}
		if f.development && isDevelopment(checked.publicURL) {
			checked.origins = append(checked.origins, developmentOrigins...)
		}
	}
	if checked.redisURL = f.RedisURL; f.RedisURL != "" {
		if err := limit.CheckURL(f.RedisURL); err != nil {
			m.add("REDIS_URL", "it is no URL of a Redis or Valkey", "give one such as redis://host:6379 or rediss://user:password@host:6380/0")
		}
	}
	checked.proxies = parseProxies(m, f.TrustedProxies)
	return checked
}

// stopFlags say how a role stops when it is terminated. An interrupt, which
// comes from a person, stops it sooner.
type stopFlags struct {
	Drain     time.Duration `env:"GATEHOUSE_DRAIN" default:"2s" placeholder:"TIME" help:"After SIGTERM, how long to go on serving while unready, for load balancers to notice."`
	StopLimit time.Duration `env:"GATEHOUSE_STOP_LIMIT" default:"30s" placeholder:"TIME" help:"After that, how long calls under way may take to finish."`
}

func (f stopFlags) parse(m *mistakes) serve.Stop {
	if f.Drain < 0 || f.Drain > 5*time.Minute {
		m.add("GATEHOUSE_DRAIN", fmt.Sprintf("%s is not a time from 0s to 5m", f.Drain), "give one such as 2s")
	}
	if f.StopLimit < time.Second || f.StopLimit > 5*time.Minute {
		m.add("GATEHOUSE_STOP_LIMIT", fmt.Sprintf("%s is not a time from 1s to 5m", f.StopLimit), "give one such as 30s")
	}
	return serve.Stop{Pause: f.Drain, Grace: f.StopLimit}
}

// throttleFlags are the gateway's and auth's.
type throttleFlags struct {
	Throttle string `env:"GATEHOUSE_THROTTLE" default:"on" placeholder:"on|off" help:"Whether failures make the next ones wait, callers are held to rates, and calls are queued and refused under overload. Off is for tests and measurements only."`
}

func (f throttleFlags) parse(m *mistakes) bool {
	if f.Throttle != "on" && f.Throttle != "off" {
		m.add("GATEHOUSE_THROTTLE", fmt.Sprintf("%q is not known", f.Throttle), "set it to on or off")
	}
	return f.Throttle != "off"
}

// accountFlags are auth's rules.
type accountFlags struct {
	SessionIdle   string `env:"GATEHOUSE_SESSION_IDLE" default:"30d" placeholder:"TIME" help:"A session that isn't used for so long ends, such as 30d or 12h."`
	SessionMax    string `env:"GATEHOUSE_SESSION_MAX" default:"365d" placeholder:"TIME" help:"Every session ends after so long."`
	AdminEmail    string `env:"GATEHOUSE_ADMIN_EMAIL" default:"admin@localhost" placeholder:"EMAIL" help:"The administrator that a first run makes."`
	AdminPassword string `env:"GATEHOUSE_ADMIN_PASSWORD" placeholder:"PASSWORD" help:"Their password. In up, one is generated if this is empty; elsewhere, none is made."`
	PasswordMin   int    `env:"GATEHOUSE_PASSWORD_MIN" default:"8" placeholder:"NUMBER" help:"How many characters a new password has at least: 8 to 64. 15 is advised where no second factor is asked."`
	KeyLife       string `env:"GATEHOUSE_KEY_LIFE" default:"30d" placeholder:"TIME" help:"For how long a signing key signs before the next one does."`
	AuditLife     string `env:"GATEHOUSE_AUDIT_LIFE" default:"400d" placeholder:"TIME" help:"For how long audit events are kept: at least 30d."`
	mailFlags
}

// mailFlags say how mail leaves.
type mailFlags struct {
	SMTPURL       string `name:"smtp-url" aliases:"smtpurl" env:"SMTP_URL" placeholder:"URL" help:"The mail server, such as smtps://user:password@mail.example.com:465, or smtp:// with STARTTLS. In up, a mailbox in the data folder if empty."`
	MailFrom      string `env:"GATEHOUSE_MAIL_FROM" placeholder:"EMAIL" help:"Who mail is from; no-reply at the public URL's host if empty."`
	MailTemplates string `env:"GATEHOUSE_MAIL_TEMPLATES" placeholder:"FOLDER" help:"Mail templates that go before the built-in ones: translations and changes."`

	// mailbox is the folder for mail where there is no server; set by up.
	mailbox string
}

// mailRules is mailFlags checked.
type mailRules struct {
	smtp      *post.SMTP // nil without a server
	mailbox   string     // "" where mail isn't kept in a folder
	from      string
	templates *post.Templates
}

// sends says whether mail leaves at all.
func (r mailRules) sends() bool { return r.smtp != nil || r.mailbox != "" }

func (f mailFlags) parse(m *mistakes, publicURL string) mailRules {
	rules := mailRules{mailbox: f.mailbox, from: f.MailFrom}
	var err error
	if f.SMTPURL != "" {
		rules.mailbox = ""
		// The error doesn't show the value: there may be a password in it.
		if rules.smtp, err = post.NewSMTP(f.SMTPURL); err != nil {
			m.add("SMTP_URL", err.Error(), "give one such as smtps://user:password@mail.example.com:465")
		}
	}
	if f.MailFrom == "" {
		rules.from = "no-reply@" + mailHost(publicURL)
	} else if _, err := mail.ParseAddress(f.MailFrom); err != nil {
		m.add("GATEHOUSE_MAIL_FROM", fmt.Sprintf("%q is not an email", f.MailFrom), "give one such as no-reply@example.com, perhaps as: Example <no-reply@example.com>")
	}
	var folder fs.FS
	if f.MailTemplates != "" {
		folder = os.DirFS(f.MailTemplates)
		if info, err := os.Stat(f.MailTemplates); err != nil || !info.IsDir() {
			m.add("GATEHOUSE_MAIL_TEMPLATES", fmt.Sprintf("%q is not a folder that can be read", f.MailTemplates), "name one, or unset it")
			return rules
		}
	}
	if rules.templates, err = post.Open(folder); err != nil {
		m.add("GATEHOUSE_MAIL_TEMPLATES", strings.ReplaceAll(err.Error(), "\n", "; "), "mend that file, or take it away")
	}
	return rules
}

// mailHost is the public URL's host as it stands in an email. Go reads no IPv6
// address there.
func mailHost(publicURL string) string {
	parsed, err := url.Parse(publicURL)
	if err != nil {
		return "localhost"
	}
	address, err := netip.ParseAddr(parsed.Hostname())
	switch {
	case err != nil:
		return parsed.Hostname()
	case address.Is4():
		return "[" + address.String() + "]"
	}
	return "localhost"
}

// accountRules is accountFlags checked.
type accountRules struct {
	registration              auth.Registration
	sessionIdle, sessionMax   time.Duration
	adminEmail, adminPassword string
	passwordMin               int
	throttle                  bool // as throttleFlags say
	keyLife, auditLife        time.Duration
	mail                      mailRules
}

func (f accountFlags) parse(m *mistakes, registration, publicURL string) accountRules {
	rules := accountRules{
		sessionIdle: parseDuration(m, "GATEHOUSE_SESSION_IDLE", f.SessionIdle),
		sessionMax:  parseDuration(m, "GATEHOUSE_SESSION_MAX", f.SessionMax),
		keyLife:     parseDuration(m, "GATEHOUSE_KEY_LIFE", f.KeyLife),
		auditLife:   parseDuration(m, "GATEHOUSE_AUDIT_LIFE", f.AuditLife),
		adminEmail:  email.Normalize(f.AdminEmail), adminPassword: f.AdminPassword,
		registration: auth.Registration(registration), passwordMin: f.PasswordMin,
		mail: f.mailFlags.parse(m, publicURL),
	}
	switch rules.registration {
	case auth.RegistrationOpen, auth.RegistrationClosed:
	case auth.RegistrationVerify:
		if f.SMTPURL == "" && !rules.mail.sends() {
			m.add("GATEHOUSE_REGISTRATION", "verify needs mail, and SMTP_URL is not set", "set SMTP_URL, or GATEHOUSE_REGISTRATION to open or closed")
		}
	default:
		m.add("GATEHOUSE_REGISTRATION", fmt.Sprintf("%q is not known", registration), "set it to open, verify or closed")
	}
	if f.PasswordMin < 8 || f.PasswordMin > 64 {
		m.add("GATEHOUSE_PASSWORD_MIN", fmt.Sprintf("it is %d", f.PasswordMin), "set it to 8 to 64")
	}
	if rules.keyLife < time.Hour {
		m.add("GATEHOUSE_KEY_LIFE", fmt.Sprintf("%q is less than an hour", f.KeyLife), "give a time such as 30d")
	}
	if rules.auditLife < 30*24*time.Hour {
		m.add("GATEHOUSE_AUDIT_LIFE", fmt.Sprintf("%q is less than 30 days", f.AuditLife), "give a time such as 400d")
	}
	checkEmail(m, "GATEHOUSE_ADMIN_EMAIL", f.AdminEmail)
	if f.AdminPassword != "" {
		checkPassword(m, "GATEHOUSE_ADMIN_PASSWORD", f.AdminPassword)
	}
	return rules
}

// checkEmail checks an email that an account is to have.
func checkEmail(m *mistakes, name, address string) {
	if !email.Mailable(email.Normalize(address)) {
		m.add(name, fmt.Sprintf("%q is not an email that mail can be sent to", address), "give one such as admin@example.com")
	}
}

func checkPassword(m *mistakes, name, password string) {
	if length := len([]rune(password)); length < 8 || length > 128 {
		m.add(name, fmt.Sprintf("it has %d characters", length), "give it 8 to 128")
	}
}

// parseDuration takes Go's durations and whole days, such as 30d.
func parseDuration(m *mistakes, name, text string) time.Duration {
	var days int
	if rest, ok := strings.CutSuffix(text, "d"); ok {
		if _, err := fmt.Sscanf(rest+"d", "%dd", &days); err == nil && days > 0 && days <= 3650 {
			return time.Duration(days) * 24 * time.Hour
		}
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration < time.Minute || duration > 3650*24*time.Hour {
		m.add(name, fmt.Sprintf("%q is not a time from one minute to ten years", text), "give one such as 30d or 12h")
	}
	return duration
}

// parseListen checks where a role listens; the default is each role's own.
func parseListen(m *mistakes, address string) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		m.add("GATEHOUSE_LISTEN", fmt.Sprintf("%q is not an address", address), "give a host and a port, such as 127.0.0.1:8001")
	}
}

// parsePeer checks where another role is: at one URL, or at several that are
// separated by commas.
func parsePeer(m *mistakes, name, address string) {
	if address == "" {
		m.add(name, "is not set", "say where that service is, such as http://127.0.0.1:8002")
		return
	}
	for one := range strings.SplitSeq(address, ",") {
		checkURL(m, name, strings.TrimSpace(one))
	}
}

func checkURL(m *mistakes, name, text string) (*url.URL, bool) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil {
		m.add(name, fmt.Sprintf("%q is not a web address", text), "give one such as http://localhost:8001 or https://auth.example.com")
		return nil, false
	}
	return parsed, true
}

func list(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// fileResolver reads a setting from the file that NAME_FILE names, where NAME
// itself isn't set: so secrets come in containers.
type fileResolver struct{}

func (fileResolver) Validate(*kong.Application) error { return nil }

func (fileResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		path := os.Getenv(name + "_FILE")
		if path == "" {
			continue
		}
		if os.Getenv(name) != "" {
			return nil, fmt.Errorf("%s and %s_FILE are both set: unset one", name, name)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			if failure, ok := errors.AsType[*fs.PathError](err); ok {
				err = failure.Err
			}
			return nil, fmt.Errorf("%s_FILE: %s can't be read: %w", name, path, err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return nil, nil
}
