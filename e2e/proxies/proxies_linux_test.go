package proxies

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"go.yaml.in/yaml/v3"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/testneed"
)

// caller is the address from which the test's clients connect; it is not the proxy's.
const caller = "127.0.0.2"

// proxy is how a proxy is started from its file.
type proxy struct {
	program string
	file    string
	// config edits the file for the test's addresses and certificate.
	config func(text string, front, gateway string, c certificate) string
	args   func(file, dir string) []string
}

var proxies = map[string]proxy{
	"Caddy": {
		program: "caddy", file: "deploy/proxies/Caddyfile",
		config: func(text, front, gateway string, c certificate) string {
			text = strings.NewReplacer("app.example.com {", "https://"+front+" {\n\ttls "+c.certFile+" "+c.keyFile, "127.0.0.1:8001", gateway).Replace(text)
			return "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + text
		},
		args: func(file, _ string) []string {
			return []string{"run", "--config", file, "--adapter", "caddyfile"}
		},
	},
	"nginx": {
		program: "nginx", file: "deploy/proxies/nginx.conf",
		config: func(text, front, gateway string, c certificate) string {
			_, port, _ := net.SplitHostPort(front)
			temporary := ""
			for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += name + "_temp_path " + filepath.Join(c.dir, name) + ";\n"
			}
			return strings.NewReplacer(
				"http {\n", "http {\naccess_log off;\n"+temporary,
				"listen 80;", "listen unix:"+filepath.Join(c.dir, "plain")+";", "listen 443 ssl http2;", "listen 127.0.0.1:"+port+" ssl http2;",
				"server_name app.example.com;", "server_name localhost;",
				"/etc/ssl/app.example.com/fullchain.pem", c.certFile, "/etc/ssl/app.example.com/privkey.pem", c.keyFile,
				"127.0.0.1:8001", gateway,
			).Replace(text)
		},
		args: func(file, dir string) []string {
			global := "daemon off; pid " + filepath.Join(dir, "nginx.pid") + ";"
			if os.Getuid() == 0 {
				global += " user root;"
			}
			return []string{"-c", file, "-p", dir, "-e", "stderr", "-g", global}
		},
	},
}

// certificate is a certificate of localhost in files.
type certificate struct {
	dir, certFile, keyFile string
	pool                   *x509.CertPool
}

func newCertificate(t *testing.T) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{dir: t.TempDir(), pool: x509.NewCertPool()}
	c.certFile, c.keyFile = filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.pool.AppendCertsFromPEM(text)
	if err := errors.Join(os.WriteFile(c.certFile, text, 0o600), os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return c
}

// client returns a client that connects from the caller's address over one version of HTTP.
func (c certificate) client(t *testing.T, http2 bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.pool},
		Protocols:       new(http.Protocols),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(caller)}}
			return dialer.DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestProxiesPassEveryProtocolOn(t *testing.T) {
	t.Parallel()
	for name, p := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := testneed.Program(t, p.program)
			c := newCertificate(t)
			_, port, _ := net.SplitHostPort(harness.FreeAddress(t))
			front := "localhost:" + port
			s := harness.Start(t, harness.OneProcess, harness.WithSettings("GATEHOUSE_PUBLIC_URL=https://"+front, "GATEHOUSE_TRUSTED_PROXIES=127.0.0.1/32"))
			p.start(t, program, front, strings.TrimPrefix(s.URL, "http://"), c)
			s.URL = "https://" + front
			for _, test := range []struct {
				name    string
				http2   bool
				options []connecthttp.Option
			}{
				{"Connect over HTTP/1.1", false, nil},
				{"Connect over HTTP/2", true, nil},
				{"JSON over HTTP/2", true, []connecthttp.Option{connecthttp.WithProtoJSON()}},
				{"gRPC", true, []connecthttp.Option{connecthttp.WithGRPC()}},
				{"gRPC-Web", false, []connecthttp.Option{connecthttp.WithGRPCWeb()}},
			} {
				wantSession(t, s, test.name, c.client(t, test.http2), test.options)
			}
			wantSecureCookies(t, s.URL, c.client(t, true))
			wantErrorOfGatehouse(t, s.URL, c.client(t, true))
		})
	}
}

func (p proxy) start(t *testing.T, program, front, gateway string, c certificate) {
	t.Helper()
	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "127.0.0.1:8001") {
		t.Fatalf("%s does not name the gateway", p.file)
	}
	file := filepath.Join(c.dir, filepath.Base(p.file))
	if err := os.WriteFile(file, []byte(p.config(string(text), front, gateway, c)), 0o600); err != nil {
		t.Fatal(err)
	}
	running := harness.StartProgram(t, program, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "XDG_DATA_HOME=" + c.dir, "XDG_CONFIG_HOME=" + c.dir}, p.args(file, c.dir)...)
	// Before it is killed, which nginx's workers would survive.
	t.Cleanup(func() {
		_ = running.Cmd.Process.Signal(syscall.SIGTERM)
		running.Wait(t)
	})
	over := c.client(t, false)
	harness.Eventually(t, 30*time.Second, "the proxy", func() error {
		if running.HasEnded() {
			t.Fatalf("it ended: %s%s", running.Stdout.String(), running.Stderr.String())
		}
		response, err := over.Get("https://" + front + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// forged adds the header of somebody who chooses an address.
type forged struct{ http.RoundTripper }

func (f forged) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	return f.RoundTripper.RoundTrip(r)
}

// wantSession signs somebody up through the proxy. The session has the address of the
// connection, whatever the caller wrote.
func wantSession(t *testing.T, s *harness.System, name string, over *http.Client, options []connecthttp.Option) {
	t.Helper()
	over = &http.Client{Transport: forged{over.Transport}}
	email := strings.ToLower(strings.NewReplacer(" ", "-", "/", "-").Replace(name)) + "@example.com"
	anonymous := s.ClientOver(over, "", options...)
	response, err := anonymous.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: email, Password: harness.Password, FirstName: "Ada"})
	if err != nil {
		t.Errorf("%s: Register: %v", name, err)
		return
	}
	me := s.ClientOver(over, response.GetSignedIn().GetTokens().GetAccessToken(), options...)
	sessions, err := me.Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
	if err != nil || len(sessions.GetSessions()) != 1 {
		t.Errorf("%s: ListSessions = %v, %v, want one session", name, sessions, err)
		return
	}
	if got := sessions.GetSessions()[0].GetIpAddress(); got != caller {
		t.Errorf("%s: the session has the address %s, want the caller's %s", name, got, caller)
	}
}

func post(t *testing.T, over *http.Client, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := over.Do(request)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	return response, string(text)
}

// wantSecureCookies signs in as a browser does.
func wantSecureCookies(t *testing.T, url string, over *http.Client) {
	t.Helper()
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, harness.AdminEmail, harness.AdminPassword)
	response, text := post(t, over, url+"/bff.v1.AuthService/Login", body, "X-Gatehouse-Session", "cookie", "Origin", url)
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		t.Fatalf("Login: %s %s, %s", response.Proto, response.Status, text)
	}
	cookies := response.Cookies()
	for _, cookie := range cookies {
		if !cookie.Secure || !cookie.HttpOnly || !strings.HasPrefix(cookie.Name, "__Host-") && !strings.HasPrefix(cookie.Name, "__Secure-") {
			t.Errorf("the cookie %s is not for https only", cookie)
		}
	}
	if len(cookies) == 0 {
		t.Errorf("no cookies, and %s", text)
	}
}

// wantErrorOfGatehouse sends a body that is too large: the error is Gatehouse's JSON, not a
// page of the proxy.
func wantErrorOfGatehouse(t *testing.T, url string, over *http.Client) {
	t.Helper()
	response, text := post(t, over, url+"/api/v1/auth/login", `{"email":"`+strings.Repeat("x", 1<<21)+`"}`)
	if response.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(text, "REQUEST_TOO_LARGE") {
		t.Errorf("a large body: %s, %.200s, want 413 REQUEST_TOO_LARGE", response.Status, text)
	}
}

// Traefik does not run here: its file is YAML, and every name that it refers to exists.
func TestTheFileOfTraefikIsConsistent(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("deploy/proxies/traefik.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		HTTP struct {
			Routers map[string]struct {
				Rule        string
				EntryPoints []string `yaml:"entryPoints"`
				Service     string
				TLS         map[string]string
			}
			Services map[string]struct {
				LoadBalancer struct {
					Servers            []struct{ URL string }
					HealthCheck        struct{ Path, Interval string } `yaml:"healthCheck"`
					ResponseForwarding struct {
						FlushInterval string `yaml:"flushInterval"`
					} `yaml:"responseForwarding"`
				} `yaml:"loadBalancer"`
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for name, router := range file.HTTP.Routers {
		service, ok := file.HTTP.Services[router.Service]
		if !ok || len(service.LoadBalancer.Servers) == 0 || service.LoadBalancer.HealthCheck.Path != "/readyz" {
			t.Errorf("the router %s has no service with a server and a check of readiness: %+v", name, service)
		}
	}
	if len(file.HTTP.Routers) != 1 {
		t.Errorf("%d routers, want one", len(file.HTTP.Routers))
	}
}
