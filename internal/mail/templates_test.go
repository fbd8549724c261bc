package mail

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// withLink are the kinds that have a link.
var withLink = []string{"verify_email", "account_exists", "invitation", "reset_password", "confirm_email", "sign_in"}

const link = "https://example.com/link/verify#token=ghl_0123"

func letter(kind, locale string) Letter {
	l := Letter{
		Kind: kind, Locale: locale, To: "ada@example.com", Site: "https://example.com", LinkLife: 30 * time.Minute,
		Values: map[string]string{
			"first_name": "Ada", "ip_address": "203.0.113.7", "user_agent": "Firefox", "time": "2026-01-02T03:04:05Z",
			"new_email": "new@example.com", "old_email": "old@example.com", "code": "K7MQ2XWB", "codes_left": "9", "provider": "Google", "webhook_url": "https://hooks.example.net/", "key_name": "Nightly", "expire_time": "2026-04-01T00:00:00Z",
		},
	}
	if slices.Contains(withLink, kind) {
		l.Link = link
	}
	return l
}

func open(t *testing.T, folder fs.FS) *Templates {
	t.Helper()
	templates, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	return templates
}

func TestEveryKindIsWrittenInEveryLanguage(t *testing.T) {
	t.Parallel()
	templates := open(t, nil)
	kinds := slices.Sorted(maps.Keys(templates.byLanguage["en"]))
	if len(kinds) != 27 {
		t.Errorf("there are %d kinds, want 27: %v", len(kinds), kinds)
	}
	for language, has := range templates.byLanguage {
		if got := slices.Sorted(maps.Keys(has)); !slices.Equal(got, kinds) {
			t.Errorf("%s has %v, want %v", language, got, kinds)
		}
		for kind := range has {
			for _, full := range []bool{true, false} {
				l := letter(kind, language)
				if !full {
					l.Values = nil
				}
				got, err := templates.Render(l)
				if err != nil {
					t.Fatal(err)
				}
				want := slices.Contains(withLink, kind)
				// In HTML once to click on and once to read.
				if n := strings.Count(got.Text, link); want != (n == 1) || !want && n != 0 {
					t.Errorf("%s/%s: the text has the link %d times:\n%s", language, kind, n, got.Text)
				}
				if strings.Contains(got.HTML, `href="`+link+`"`) != want {
					t.Errorf("%s/%s: the HTML has the link: %t, want %t:\n%s", language, kind, !want, want, got.HTML)
				}
				if want && !strings.Contains(got.Text, "30 ") {
					t.Errorf("%s/%s doesn't say for how long the link works:\n%s", language, kind, got.Text)
				}
				if got.Language != language || !strings.Contains(got.HTML, `lang="`+language+`"`) {
					t.Errorf("%s/%s is in %q:\n%s", language, kind, got.Language, got.HTML)
				}
				if !strings.Contains(got.Subject, "example.com") || strings.ContainsAny(got.Subject, "\r\n{") || len(got.Subject) > 78 {
					t.Errorf("%s/%s: subject %q", language, kind, got.Subject)
				}
				for _, text := range []string{got.Text, got.HTML} {
					if strings.Contains(text, "no value") || strings.Contains(text, "{{") || strings.Contains(text, "  \n\n\n") {
						t.Errorf("%s/%s isn't filled in:\n%s", language, kind, text)
					}
				}
			}
		}
	}
}

func TestWhatAMailIsAboutStandsInIt(t *testing.T) {
	t.Parallel()
	templates := open(t, nil)
	for kind, want := range map[string][]string{
		"new_sign_in":            {"203.0.113.7", "Firefox", "2026-01-02 03:04 UTC", "Ada"},
		"email_change_requested": {"new@example.com"},
		"email_changed":          {"old@example.com", "new@example.com"},
		"password_changed":       {"2026-01-02 03:04 UTC"},
		"totp_added":             {"203.0.113.7", "Firefox", "2026-01-02 03:04 UTC"},
		"totp_removed":           {"203.0.113.7", "Firefox", "2026-01-02 03:04 UTC"},
		"factors_reset":          {"2026-01-02 03:04 UTC"},
		"recovery_code_used":     {"203.0.113.7", "2026-01-02 03:04 UTC", ": 9."},
		"second_factor_failed":   {"203.0.113.7", "2026-01-02 03:04 UTC"},
		"identity_linked":        {"203.0.113.7", "2026-01-02 03:04 UTC", "Google"},
		"identity_unlinked":      {"203.0.113.7", "2026-01-02 03:04 UTC", "Google"},
		"key_created":            {"Nightly", "2026-04-01 00:00 UTC", "203.0.113.7", "Firefox", "2026-01-02 03:04 UTC"},
		"key_expiring":           {"Nightly", "2026-04-01 00:00 UTC"},
		"passkey_added":          {"203.0.113.7", "Firefox", "2026-01-02 03:04 UTC"},
		"passkey_removed":        {"203.0.113.7", "2026-01-02 03:04 UTC"},
		"passkey_blocked":        {"203.0.113.7", "2026-01-02 03:04 UTC"},
		"password_removed":       {"203.0.113.7", "2026-01-02 03:04 UTC"},
		"enrolment_code":         {"K7MQ2XWB"},
		"webhook_failed":         {"https://hooks.example.net/"},
		"webhook_disabled":       {"https://hooks.example.net/"},
	} {
		for _, language := range []string{"en", "de"} {
			got, err := templates.Render(letter(kind, language))
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range want {
				if !strings.Contains(got.Text, w) || !strings.Contains(got.HTML, w) {
					t.Errorf("%s/%s doesn't say %q:\n%s\n%s", language, kind, w, got.Text, got.HTML)
				}
			}
		}
	}
}

func TestALanguageFallsBackToAMoreGeneralOneAndThenToEnglish(t *testing.T) {
	t.Parallel()
	file := func(subject string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(`{{define "subject"}}` + subject + `{{end}}{{define "text"}}{{.Link}}{{end}}{{define "html"}}<p>{{.Link}}</p>{{end}}`)}
	}
	templates := open(t, fstest.MapFS{
		"pt/reset_password.tmpl":         file("Senha"),
		"pt-BR/verify_email.tmpl":        file("Confirme"),
		"zh-Hant-TW/reset_password.tmpl": file("密碼"),
		"ar/reset_password.tmpl":         file("كلمة المرور"),
		"en/invitation.tmpl":             file("Come in"),
		"README.md":                      {Data: []byte("ours")},
	})
	for _, test := range []struct{ locale, kind, subject, language string }{
		{"pt-BR", "verify_email", "Confirme", "pt-BR"},
		{"pt-BR", "reset_password", "Senha", "pt"},
		{"PT_br", "reset_password", "Senha", "pt"},
		{"pt-BR-x-private", "reset_password", "Senha", "pt"},
		{"pt", "verify_email", "Confirm your email for example.com", "en"},
		{"de-AT", "verify_email", "Bestätigen Sie Ihre E-Mail-Adresse für example.com", "de"},
		{"zh-Hant-TW", "reset_password", "密碼", "zh-Hant-TW"},
		{"zh-Hant", "reset_password", "Choose a new password for example.com", "en"},
		{"ar-EG", "reset_password", "كلمة المرور", "ar"},
		{"", "invitation", "Come in", "en"},
		{"../../etc/passwd", "invitation", "Come in", "en"},
		{"---", "invitation", "Come in", "en"},
	} {
		got, err := templates.Render(letter(test.kind, test.locale))
		if err != nil {
			t.Fatal(err)
		}
		if got.Subject != test.subject || got.Language != test.language {
			t.Errorf("%s in %q: got %q in %s, want %q in %s", test.kind, test.locale, got.Subject, got.Language, test.subject, test.language)
		}
		if rtl := strings.Contains(got.HTML, `dir="rtl"`); rtl != (test.language == "ar") {
			t.Errorf("%s: from right to left: %t", test.language, rtl)
		}
	}
	if _, err := templates.Render(letter("nope", "en")); err == nil {
		t.Error("a mail that there isn't was written")
	}
}

func TestATemplateThatIsBrokenIsRefusedWithItsFileAndReason(t *testing.T) {
	t.Parallel()
	const good = `{{define "subject"}}Hi{{end}}{{define "text"}}{{.Link}}{{end}}{{define "html"}}{{.Link}}{{end}}`
	for name, test := range map[string]struct{ file, text, reason string }{
		"doesn't parse":             {"fr/reset_password.tmpl", good + `{{`, "unclosed action"},
		"knows no such value":       {"fr/reset_password.tmpl", strings.Replace(good, ".Link", ".Lnk", 1), "Lnk"},
		"no such value in branches": {"fr/reset_password.tmpl", strings.Replace(good, `"html"}}`, `"html"}}{{if .IPAddress}}{{.Oops}}{{end}}`, 1), "Oops"},
		"has no HTML":               {"fr/reset_password.tmpl", `{{define "subject"}}Hi{{end}}{{define "text"}}{{.Link}}{{end}}`, `doesn't define "html"`},
		"has an empty subject":      {"fr/reset_password.tmpl", strings.Replace(good, "Hi", " ", 1), "subject"},
		"lost its link":             {"fr/reset_password.tmpl", strings.Replace(good, "{{.Link}}", "", 1), "Link"},
		"is of no kind":             {"fr/reset_pasword.tmpl", good, "reset_password"},
		"is of no language":         {"french!/reset_password.tmpl", good, "not a language"},
		"is in no language":         {"reset_password.tmpl", good, "folder"},
		"unquoted HTML":             {"fr/reset_password.tmpl", strings.Replace(good, `"html"}}`, `"html"}}<a href=x{{if .Link}} b="{{end}}>`, 1), "html"},
		"the layout":                {"layout.tmpl", `{{define "text_layout"}}x{{end}}`, "html_layout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(fstest.MapFS{test.file: {Data: []byte(test.text)}})
			if err == nil {
				t.Fatalf("%s was accepted:\n%s", test.file, test.text)
			}
			if text := err.Error(); !strings.Contains(text, test.reason) || test.file != layoutFile && !strings.Contains(text, test.file) {
				t.Errorf("got %q, want it to name %s and %q", text, test.file, test.reason)
			}
		})
	}
	_, err := Open(fstest.MapFS{"fr/a.tmpl": {}, "it/b.tmpl": {}})
	if err == nil || !strings.Contains(err.Error(), "fr/a") || !strings.Contains(err.Error(), "it/b") {
		t.Errorf("of two broken files, it says %v", err)
	}
}

func TestAHostileNameStaysAName(t *testing.T) {
	t.Parallel()
	templates := open(t, nil)
	for given, want := range map[string]string{
		"Ada":                              "Ada",
		"Jean-Luc O'Neill":                 "Jean-Luc O'Neill",
		"J. R.":                            "J. R.",
		"<script>alert(1)</script>":        "",
		"Win at evil.example":              "",
		"https://evil.example":             "",
		"evil@example.com":                 "",
		"Ada\r\n\r\nYour account is gone!": "Ada Your account is gone!",
		`"><img src=x>`:                    "",
		"{{.Link}}":                        "",
		"Tom & \"Jerry\"":                  "Tom & \"Jerry\"",
	} {
		l := letter("reset_password", "en")
		l.Values = map[string]string{"first_name": given}
		got, err := templates.Render(l)
		if err != nil {
			t.Fatal(err)
		}
		wantLine := "Hello " + want + ","
		if want == "" {
			wantLine = "Hello,"
		}
		if line, _, _ := strings.Cut(got.Text, "\n"); line != wantLine {
			t.Errorf("%q: got %q, want %q", given, line, wantLine)
		}
	}
	// What isn't left out is escaped where it is HTML, and there alone.
	l := letter("new_sign_in", "en")
	l.Values = map[string]string{"user_agent": `x&y"z ` + strings.Repeat("y", 500), "ip_address": "1\n2"}
	got, err := templates.Render(l)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.HTML, "x&y") || !strings.Contains(got.HTML, "x&amp;y") || !strings.Contains(got.Text, `x&y"z`) {
		t.Errorf("the text and the HTML say\n%s\n%s", got.Text, got.HTML)
	}
	if strings.Contains(got.Text, strings.Repeat("y", maxValue)) || !strings.Contains(got.Text, "Address: 1 2") {
		t.Errorf("a value isn't held to one short line:\n%s", got.Text)
	}
}

func TestAUserAgentBringsNoLinkAlong(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                          "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
		"curl/8.5.0":                         "curl/8.5.0",
		"gatehouse admin import":             "gatehouse admin import",
		"Sign in at evil.example":            "Sign in at",
		"Firefox/140.0 (evil.example/login)": "Firefox/140.0",
		"https://evil.example":               "",
		"//evil":                             "",
		"www.evil.example.":                  "",
		"help@evil.example":                  "",
		"mailto:help@localhost":              "",
		"203.0.113.9/login":                  "",
		"[203.0.113.9]:8080":                 "",
		"evil\u3002example":                  "",
		"\u202eelpmaxe.live":                 "",
		"a<b":                                "",
		"evil.xn--p1ai":                      "",
	} {
		if got := program(given); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}
