package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Media types and names of the OCI image specification 1.1.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	refName      = "org.opencontainers.image.ref.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *ociPlatform      `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type imageConfig struct {
	Created time.Time `json:"created"`
	ociPlatform
	Config  runConfig `json:"config"`
	RootFS  rootFS    `json:"rootfs"`
	History []history `json:"history"`
}

type runConfig struct {
	User       string
	Env        []string
	Entrypoint []string
	WorkingDir string
	Labels     map[string]string
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// nonroot is the user and group of the image, as in distroless images.
const nonroot = 65532

// layout collects the blobs of an image.
type layout struct {
	entries []entry
	known   map[string]bool
}

func (l *layout) add(mediaType string, content []byte) descriptor {
	hash := fmt.Sprintf("%x", sha256.Sum256(content))
	if !l.known[hash] { // the layer that all platforms share
		l.known[hash] = true
		l.entries = append(l.entries, entry{name: "blobs/sha256/" + hash, mode: 0o644, content: content})
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hash, Size: len(content)}
}

func (l *layout) addJSON(mediaType string, value any) (descriptor, error) {
	content, err := json.Marshal(value)
	return l.add(mediaType, content), err
}

// layer is a compressed layer with the digest of its uncompressed tar archive.
type layer struct {
	content []byte
	diffID  string
	by      string
}

func makeLayer(by string, at time.Time, entries ...entry) (layer, error) {
	archive, err := makeTar(entries, at)
	if err != nil {
		return layer{}, err
	}
	content, err := compress(archive)
	return layer{content, fmt.Sprintf("sha256:%x", sha256.Sum256(archive)), by}, err
}

// writeImage writes the image of the Linux platforms as an archive of an OCI layout.
func (r *release) writeImage(programs map[platform]string) error {
	base, err := makeLayer("certificates and users", r.time, baseEntries()...)
	if err != nil {
		return err
	}
	l := &layout{known: map[string]bool{}, entries: []entry{
		{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755},
	}}
	images := index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{}}
	for _, p := range r.platforms {
		if p.os != "linux" {
			continue
		}
		content, err := os.ReadFile(programs[p])
		if err != nil {
			return err
		}
		program, err := makeLayer("gatehouse "+r.version, r.time, entry{name: "gatehouse", mode: 0o755, content: content})
		if err != nil {
			return err
		}
		added, err := r.addManifest(l, p, base, program)
		if err != nil {
			return err
		}
		images.Manifests = append(images.Manifests, added)
	}
	if len(images.Manifests) == 0 {
		return nil
	}
	all, err := l.addJSON(indexType, images)
	if err != nil {
		return err
	}
	all.Annotations = map[string]string{refName: r.version}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{all}})
	if err != nil {
		return err
	}
	archive, err := makeTar(append(l.entries, entry{name: "index.json", mode: 0o644, content: top}), r.time)
	if err != nil {
		return err
	}
	if err := checkImage(archive); err != nil {
		return fmt.Errorf("the image: %w", err)
	}
	return r.write(fmt.Sprintf("gatehouse-%s-image.oci.tar", r.version), archive)
}

// addManifest adds the image of one platform.
func (r *release) addManifest(l *layout, p platform, layers ...layer) (descriptor, error) {
	config := imageConfig{
		Created: r.time, ociPlatform: ociPlatform{Architecture: p.arch, OS: p.os}, RootFS: rootFS{Type: "layers"},
		Config: runConfig{
			User: fmt.Sprintf("%d:%d", nonroot, nonroot), Entrypoint: []string{"/gatehouse"}, WorkingDir: "/home/nonroot", Labels: r.labels(),
			Env: []string{"PATH=/", "HOME=/home/nonroot", "SSL_CERT_FILE=/" + certificates},
		},
	}
	m := manifest{SchemaVersion: 2, MediaType: manifestType, Annotations: r.labels()}
	for _, one := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, one.diffID)
		config.History = append(config.History, history{r.time, one.by})
		m.Layers = append(m.Layers, l.add(layerType, one.content))
	}
	var err error
	if m.Config, err = l.addJSON(configType, config); err != nil {
		return descriptor{}, err
	}
	added, err := l.addJSON(manifestType, m)
	added.Platform = &config.ociPlatform
	return added, err
}

func (r *release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "gatehouse",
		"org.opencontainers.image.description": "The front door for an application: accounts, sessions and users behind one gateway.",
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.commit,
		"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
}

const certificates = "etc/ssl/certs/ca-certificates.crt"

// baseEntries are the files that a static program needs: certificates of Mozilla's
// authorities, a user without privileges, and folders for temporary files and its home.
func baseEntries() []entry {
	return []entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: certificates, mode: 0o644, content: authorities()},
		{name: "home/", mode: 0o755},
		{name: "home/nonroot/", mode: 0o700, uid: nonroot, gid: nonroot},
		{name: "tmp/", mode: 0o1777},
	}
}

// authorities returns the certificates as PEM. It leaves out those that are trusted under
// conditions, such as until a date, which PEM cannot express.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if root.Constraint != nil || err != nil {
			continue
		}
		fmt.Fprintf(&out, "# %s\n", certificate.Subject)
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer never fails
	}
	return out.Bytes()
}
