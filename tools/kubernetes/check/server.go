package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// server is an API server with its etcd.
type server struct {
	url, token string
	client     *http.Client
	folder     string
	processes  []*exec.Cmd
}

// start starts etcd and the API server on free ports of this machine.
func start(ctx context.Context, apiserver, etcd string) (*server, error) {
	folder, err := os.MkdirTemp("", "gatehouse-kubernetes")
	if err != nil {
		return nil, err
	}
	s := &server{folder: folder, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is on this machine, with a certificate of its own
	}}}
	if err := s.run(ctx, apiserver, etcd); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) run(ctx context.Context, apiserver, etcd string) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	s.token, s.url = hex.EncodeToString(token), "https://"+ports[2]
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"tokens.csv": []byte(s.token + ",check,check,system:masters\n"),
		"key.pem":    pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	} {
		if err := os.WriteFile(filepath.Join(s.folder, name), text, 0o600); err != nil {
			return err
		}
	}
	store, peer := "http://"+ports[0], "http://"+ports[1]
	if err := s.process(etcd, "--data-dir="+filepath.Join(s.folder, "etcd"), "--listen-client-urls="+store, "--advertise-client-urls="+store,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer, "--unsafe-no-fsync"); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(ports[2])
	if err != nil {
		return err
	}
	keyFile := filepath.Join(s.folder, "key.pem")
	if err := s.process(apiserver, "--etcd-servers="+store, "--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+s.folder,
		"--token-auth-file="+filepath.Join(s.folder, "tokens.csv"), "--authorization-mode=AlwaysAllow", "--service-cluster-ip-range=10.0.0.0/16",
		"--service-account-issuer=https://localhost", "--service-account-key-file="+keyFile, "--service-account-signing-key-file="+keyFile,
		"--disable-admission-plugins=ServiceAccount"); err != nil {
		return err
	}
	err = s.eventually(ctx, "the API server is not ready", func() bool {
		_, err := s.request(ctx, http.MethodGet, "/readyz", "", nil)
		return err == nil
	})
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.folder, filepath.Base(apiserver)+".log"))
		return fmt.Errorf("%w:\n%s", err, log[max(0, len(log)-3000):])
	}
	return nil
}

// process starts a program that ends with this one. Its log is in the folder.
func (s *server) process(path string, args ...string) error {
	out, err := os.Create(filepath.Join(s.folder, filepath.Base(path)+".log"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	s.processes = append(s.processes, cmd)
	return nil
}

// stop ends the processes, the last one first.
func (s *server) stop() {
	for i := len(s.processes) - 1; i >= 0; i-- {
		cmd := s.processes[i]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		killer.Stop()
	}
	_ = os.RemoveAll(s.folder)
}

func (s *server) eventually(ctx context.Context, failure string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return errors.New(failure)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

func freePorts(count int) ([]string, error) {
	var addresses []string
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}

// request returns the body of a successful answer. A warning of the server is an error.
func (s *server) request(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return text, statusError{response.StatusCode, strings.TrimSpace(string(text))}
	}
	if warnings := response.Header.Values("Warning"); len(warnings) > 0 {
		return text, fmt.Errorf("warning: %s", strings.Join(warnings, "; "))
	}
	return text, nil
}

type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return fmt.Sprintf("status %d: %s", e.code, e.text) }

// object is what a manifest says about itself.
type object struct {
	APIVersion string
	Kind       string
	Metadata   struct{ Name string }
}

// resources are the plural names of the kinds that are not their lower case with an s.
var resources = map[string]string{"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}

// unavailable are the kinds of the Prometheus Operator, whose definitions are in no module
// that can be fetched. The chart's tests decode them by their Go types.
const unavailable = "monitoring.coreos.com/v1"

// path returns the address of an object.
func path(text, namespace string) (address string, about object, err error) {
	if err := yaml.Unmarshal([]byte(text), &about); err != nil {
		return "", about, err
	}
	api := "/apis/"
	if !strings.Contains(about.APIVersion, "/") {
		api = "/api/"
	}
	plural, ok := resources[about.Kind]
	if !ok {
		plural = strings.ToLower(about.Kind) + "s"
	}
	return fmt.Sprintf("%s%s/namespaces/%s/%s/%s", api, about.APIVersion, namespace, plural, about.Metadata.Name), about, nil
}

// applyAll applies the manifests of a set, and prints how many.
func (s *server) applyAll(ctx context.Context, one set, namespace string, dryRun bool) error {
	kinds := map[string]int{}
	var failures []error
	for _, manifest := range one.manifests {
		address, about, err := path(manifest.Text, namespace)
		if err != nil {
			return err
		}
		if about.APIVersion == unavailable {
			continue
		}
		kinds[about.Kind]++
		if err := s.apply(ctx, manifest.Text, namespace, dryRun); err != nil {
			failures = append(failures, fmt.Errorf("%s: %s: %w", one.name, address, err))
		}
	}
	counts, err := json.Marshal(kinds)
	fmt.Printf("%s in %s, dry run %t, %d failures: %s\n", one.name, namespace, dryRun, len(failures), counts)
	return errors.Join(append(failures, err)...)
}

// apply applies an object as kubectl apply --server-side --validate=strict does.
func (s *server) apply(ctx context.Context, text, namespace string, dryRun bool) error {
	address, _, err := path(text, namespace)
	if err != nil {
		return err
	}
	address += "?fieldManager=check&force=true&fieldValidation=Strict"
	if dryRun {
		address += "&dryRun=All"
	}
	_, err = s.request(ctx, http.MethodPatch, address, "application/apply-patch+yaml", []byte(text))
	return err
}

// remove deletes an object, if it exists, and waits until it is gone.
func (s *server) remove(ctx context.Context, text, namespace string) error {
	address, _, err := path(text, namespace)
	if err != nil {
		return err
	}
	gone := func(err error) bool {
		status, ok := errors.AsType[statusError](err)
		return ok && status.code == http.StatusNotFound
	}
	if _, err := s.request(ctx, http.MethodDelete, address+"?propagationPolicy=Background", "", nil); err != nil && !gone(err) {
		return err
	}
	return s.eventually(ctx, address+" is not deleted", func() bool {
		_, err := s.request(ctx, http.MethodGet, address, "", nil)
		return gone(err)
	})
}

// namespace creates a namespace that enforces the restricted standard, and warns of
// Deployments and Jobs whose pods it would refuse.
func (s *server) namespace(ctx context.Context, name string) error {
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{
		"pod-security.kubernetes.io/enforce":"restricted","pod-security.kubernetes.io/warn":"restricted"}}}`, name)
	_, err := s.request(ctx, http.MethodPost, "/api/v1/namespaces", "application/json", []byte(text))
	return err
}

// define defines HTTPRoute, and waits until it is served.
func (s *server) define(ctx context.Context, folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "gateway.networking.k8s.io_httproutes.yaml"))
	if err != nil {
		return err
	}
	const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io"
	if _, err := s.request(ctx, http.MethodPatch, definitions+"?fieldManager=check", "application/apply-patch+yaml", text); err != nil {
		return err
	}
	return s.eventually(ctx, "HTTPRoute is not served", func() bool {
		_, err := s.request(ctx, http.MethodGet, "/apis/gateway.networking.k8s.io/v1/httproutes", "", nil)
		return err == nil
	})
}
