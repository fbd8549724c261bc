package app

import (
	"slices"
	"strings"
	"testing"
)

// What browsers send as the Origin of a page there, or a fix.
func TestAWebAddressIsWrittenAsBrowsersWriteIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ given, want, fix string }{
		{given: "https://example.com", want: "https://example.com"},
		{given: "https://example.com/", want: "https://example.com"},
		{given: "https://example.com:443", want: "https://example.com"},
		{given: "http://example.com:80", want: "http://example.com"},
		{given: "http://example.com:443", want: "http://example.com:443"},
		{given: "https://example.com:80", want: "https://example.com:80"},
		{given: "https://example.com:", want: "https://example.com"},
		{given: "http://localhost:08001", want: "http://localhost:8001"},
		{given: "HTTPS://Example.COM", want: "https://example.com"},
		{given: "https://münchen.example", want: "https://xn--mnchen-3ya.example"},
		{given: "https://MÜNCHEN.example:443", want: "https://xn--mnchen-3ya.example"},
		{given: "https://m%C3%BCnchen.example", want: "https://xn--mnchen-3ya.example"},
		{given: "https://xn--mnchen-3ya.example", want: "https://xn--mnchen-3ya.example"},
		{given: "https://faß.example", want: "https://xn--fa-hia.example"},
		{given: "https://ＦＵＬＬ．example", want: "https://full.example"},
		{given: "http://my_app:8080", want: "http://my_app:8080"},
		{given: "http://127.0.0.1:8001", want: "http://127.0.0.1:8001"},
		{given: "http://[2001:0DB8:0:0::1]:80", want: "http://[2001:db8::1]"},
		{given: "https://example.com.", fix: "leave the dot out"},
		{given: "https://example。com。", fix: "leave the dot out"},
		{given: "https://example..com", fix: "give one such as auth.example.com"},
		{given: "https://*.example.com", fix: "give one such as auth.example.com"},
		{given: "http://127.1:8001", fix: "all four numbers"},
		{given: "http://0x7f.1", fix: "all four numbers"},
		{given: "http://[::ffff:127.0.0.1]", fix: "IPv4 address"},
		{given: "http://[fe80::1%25eth0]", fix: "IPv4 address"},
		{given: "http://localhost:0", fix: "1 to 65535"},
		{given: "http://localhost:65536", fix: "1 to 65535"},
		{given: "https://example.com/path", fix: "leave the rest out"},
		{given: "https://example.com?", fix: "leave the rest out"},
		{given: "https://example.com#", fix: "leave the rest out"},
		{given: "https://ada:secret@example.com", fix: "leave the rest out"},
		{given: "ftp://example.com", fix: "http://localhost:8001"},
		{given: "example.com", fix: "http://localhost:8001"},
		{given: "https://", fix: "http://localhost:8001"},
	} {
		got, err := webOrigin(test.given)
		if got != test.want || (err != nil) != (test.fix != "") || err != nil && !strings.Contains(err.Error(), test.fix) {
			t.Errorf("%q: got %q, %v; want %q, a fix with %q", test.given, got, err, test.want, test.fix)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows a password: %v", test.given, err)
		}
	}
}

func TestOriginsAreWrittenAsBrowsersWriteThem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		given, publicURL string
		development      bool
		want             []string
		fault            string
	}{
		{given: "https://App.example.com:443, http://münchen.example:80", want: []string{"https://app.example.com", "http://xn--mnchen-3ya.example"}},
		{given: "http://localhost:*,http://[::1]:*", want: []string{"http://localhost:*", "http://[::1]:*"}},
		{given: "https://example.com.", fault: "leave the dot out"},
		{given: "https://example.com:*", fault: "* is for localhost"},
		{given: "http://10.0.0.1:*", fault: "* is for localhost"},
		{given: "*", fault: "is not a web address"},
		{publicURL: "https://Example.com:443/", want: []string{"https://example.com"}},
		{want: []string{"http://localhost:8001"}},
		{development: true, want: []string{"http://localhost:8001", "http://localhost:*", "http://127.0.0.1:*"}},
		{development: true, publicURL: "https://gatehouse.example", want: []string{"https://gatehouse.example"}},
		{development: true, given: "https://app.example.com", want: []string{"https://app.example.com"}},
	} {
		var m problems
		flags := &originFlags{Origins: test.given, development: test.development}
		s := &settings{}
		s.add(&publicFlags{PublicURL: test.publicURL}, flags)
		s.checkValues(&m)
		got := flags.origins
		switch text := m.Error(); {
		case test.fault != "" && !strings.Contains(text, "GATEHOUSE_ORIGINS") || !strings.Contains(text, test.fault):
			t.Errorf("%+v: said %q", test, text)
		case test.fault == "" && (len(m) > 0 || !slices.Equal(got, test.want)):
			t.Errorf("%+v: got %q, said %v", test, got, m)
		}
	}
}

// Networks that trust everybody let everybody choose the address that they are
// known by.
func TestProxiesThatAreEverybodyAreRefused(t *testing.T) {
	t.Parallel()
	for networks, want := range map[string]string{
		"":                                   "",
		"10.0.0.0/8, 192.0.2.7, fd00::/8":    "",
		"128.0.0.0/1":                        "",
		"0.0.0.0/1, 128.0.0.0/2":             "",
		"8000::/1":                           "",
		"::ffff:10.0.0.0/104":                "",
		"0.0.0.0/0":                          "every IPv4 address",
		"10.0.0.1/0":                         "every IPv4 address",
		"::ffff:0.0.0.0/96":                  "every IPv4 address",
		"0.0.0.0/1,128.0.0.0/1":              "every IPv4 address",
		"0.0.0.0/2, 128.0.0.0/1, 64.0.0.0/2": "every IPv4 address",
		"1.0.0.0/8,2.0.0.0/7,4.0.0.0/6,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/2,192.0.0.0/3": "every IPv4 address",
		"::/0":                         "every IPv6 address",
		"10.0.0.0/8, ::/1, 8000::/1":   "every IPv6 address",
		"2000::/3":                     "every IPv6 address",
		"2000::/4, 3000::/4, fc00::/7": "every IPv6 address",
	} {
		var m problems
		proxies := parseProxies(&m, networks)
		if text := m.Error(); (len(m) > 0) != (want != "") || !strings.Contains(text, want) || len(m) > 0 && !strings.Contains(text, "GATEHOUSE_TRUSTED_PROXIES") {
			t.Errorf("%q: %v, said %q; want %q", networks, proxies, text, want)
		}
	}
	var m problems
	if got := parseProxies(&m, "::ffff:10.0.0.0/104"); len(got) != 1 || got[0].String() != "10.0.0.0/8" {
		t.Errorf("a network of mapped addresses is %v, want it as callers' addresses are compared", got)
	}
}
