package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// service is the data of the templates.
type service struct {
	Name     string // orders
	Types    string // Orders
	Singular string // order
	Type     string // Order
	Upper    string // ORDER
	Port     int
	// Person says that each row belongs to an account.
	Person bool
	// Feed says that the service reports its changes to gateways, which then cache.
	Feed bool
	// Database says that the service stores rows.
	Database bool
	// Part says that the newest rows of the caller are a part of GetMe.
	Part bool
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]{1,30}$`)

// newService returns a service by its name and its options: singular, database, person,
// feed and part.
func newService(name string, options []string) (*service, error) {
	s := &service{Name: name, Singular: singular(name), Database: true}
	given := map[string]*bool{"database": &s.Database, "person": &s.Person, "feed": &s.Feed, "part": &s.Part}
	said := map[string]bool{}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case value == "":
		case key == "singular":
			s.Singular = value
		case given[key] != nil && (value == "yes" || value == "no"):
			*given[key], said[key] = value == "yes", true
		default:
			return nil, fmt.Errorf("%s is not an option: set SINGULAR to a word, DATABASE, PERSON, FEED or PART to yes or no", option)
		}
	}
	if !s.Database && (s.Person || s.Feed || s.Part) {
		return nil, errors.New("without a database there are no rows of people, no changes to report and no part of GetMe: leave out PERSON, FEED and PART, or DATABASE=no")
	}
	for _, key := range []string{"person", "feed"} { // by default, what has a database has both
		*given[key] = *given[key] || s.Database && !said[key]
	}
	if s.Part && !s.Person {
		return nil, errors.New("GetMe has what belongs to the caller: leave out PART=yes, or PERSON=no")
	}
	for key, value := range map[string]string{"NAME": s.Name, "SINGULAR": s.Singular} {
		if !nameForm.MatchString(value) || token.IsKeyword(value) {
			return nil, fmt.Errorf("%s is %q: choose one word of small letters and digits", key, value)
		}
	}
	if s.Name == s.Singular {
		return nil, fmt.Errorf("%s is both the singular and the plural: set SINGULAR to another word", s.Name)
	}
	s.Types, s.Type, s.Upper = title(s.Name), title(s.Singular), strings.ToUpper(s.Singular)
	return s, nil
}

func title(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}

// singular guesses the singular of a name. The option singular replaces a wrong guess.
func singular(name string) string {
	for many, one := range map[string]string{"ies": "y", "sses": "ss", "xes": "x", "ches": "ch", "shes": "sh"} {
		if stem, ok := strings.CutSuffix(name, many); ok {
			return stem + one
		}
	}
	return strings.TrimSuffix(name, "s")
}

// Path is the REST path of the collection.
func (s *service) Path() string {
	if s.Person {
		return "/api/v1/users/{user_id}/" + s.Name
	}
	return "/api/v1/" + s.Name
}

// CreatedPath is the REST path of a new row, by fields of the answer.
func (s *service) CreatedPath() string {
	path := strings.Replace(s.Path(), "{user_id}", "{"+s.Singular+".user_id}", 1)
	return path + "/{" + s.Singular + ".id}"
}

// TagField is the field of a request whose value a cache tag has.
func (s *service) TagField() string {
	if s.Person {
		return "user_id"
	}
	return s.Singular + "_id"
}

// files are the templates by the files that they make.
func (s *service) files() map[string]string {
	if !s.Database {
		return s.filesWithoutDatabase()
	}
	files := map[string]string{
		"proto/" + s.Name + "/v1/" + s.Singular + "_service.proto": "service.proto",
		"proto/bff/v1/" + s.Singular + "_service.proto":            "public.proto",
		"app/service_" + s.Name + ".go":                            "app.go",
		"bff/" + s.Singular + "_service.go":                        "bff.go",
		s.Name + "/schema.sql":                                     "schema.sql",
		s.Name + "/service.go":                                     "service.go",
		s.Name + "/create.go":                                      "create.go",
		s.Name + "/read.go":                                        "read.go",
		s.Name + "/cancel.go":                                      "cancel.go",
		s.Name + "/service_test.go":                                "service_test.go",
		s.Name + "/plan_test.go":                                   "plan_test.go",
		parityFolder + s.Name + ".yaml":                            "parity.yaml",
	}
	if s.Part {
		files["bff/"+s.Singular+"_part.go"] = "part.go"
		files["e2e/service_"+s.Name+"_part_test.go"] = "part_test.go"
	}
	if s.Person {
		files[s.Name+"/person.go"] = "person.go"
		files[s.Name+"/erase_test.go"] = "erase_test.go"
		files["e2e/service_"+s.Name+"_test.go"] = "e2e_test.go"
	} else {
		files[parityFolder+s.Name+"_list.yaml"] = "parity_list.yaml"
	}
	return files
}

func (s *service) filesWithoutDatabase() map[string]string {
	return map[string]string{
		"proto/" + s.Name + "/v1/" + s.Singular + "_service.proto": "static_service.proto",
		"proto/bff/v1/" + s.Singular + "_service.proto":            "static_public.proto",
		"app/service_" + s.Name + ".go":                            "static_app.go",
		"bff/" + s.Singular + "_service.go":                        "static_bff.go",
		s.Name + "/service.go":                                     "static_service.go",
		s.Name + "/service_test.go":                                "static_service_test.go",
		"e2e/service_" + s.Name + "_test.go":                       "static_e2e_test.go",
		parityFolder + s.Name + ".yaml":                            "static_parity.yaml",
	}
}

// parityFolder has the calls that are compared on every surface.
const parityFolder = "e2e/contract/testdata/parity/service_"

// add writes the files and adds the service to the list. It writes nothing if one of
// the files exists.
func (s *service) add(root string) error {
	var err error
	if s.Port, err = freePort(root); err != nil {
		return err
	}
	rendered := map[string][]byte{}
	for path, name := range s.files() {
		if _, err := os.Stat(filepath.Join(root, path)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s exists: choose another NAME or SINGULAR, or move it", path)
		}
		if rendered[path], err = s.render(name); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, s.Name)); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the folder %s exists: choose another NAME", s.Name)
	}
	if err := s.checkClient(root); err != nil {
		return err
	}
	if err := s.enter(root); err != nil {
		return err
	}
	if err := s.addToClient(root); err != nil {
		return err
	}
	if s.Part {
		if err := s.addField(root); err != nil {
			return err
		}
	}
	for path, text := range rendered {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, path), text, 0o644); err != nil {
			return err
		}
	}
	return s.writeSums(root)
}

func (s *service) render(name string) ([]byte, error) {
	parsed, err := template.New(name+".tmpl").Delims("[[", "]]").ParseFS(templates, "templates/"+name+".tmpl")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, s); err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".go") {
		return format.Source(text.Bytes())
	}
	return text.Bytes(), nil
}

const firstPort = 8001

var defaultPort = regexp.MustCompile(`Listen:\s*"127\.0\.0\.1:(\d+)"`)

// freePort returns the first port that no service listens on by default.
func freePort(root string) (int, error) {
	paths, err := filepath.Glob(filepath.Join(root, "app", "service_*.go"))
	if err != nil {
		return 0, err
	}
	taken := map[int]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		for _, match := range defaultPort.FindAllSubmatch(text, -1) {
			port, err := strconv.Atoi(string(match[1]))
			if err != nil {
				return 0, err
			}
			taken[port] = true
		}
	}
	port := firstPort
	for taken[port] {
		port++
	}
	return port, nil
}

// The list of services, and its last entry, the gateway.
const (
	listFile = "app/services.go"
	lastWord = "bffService})"
)

func (s *service) word() string { return s.Name + "Service, " }

// enter adds the service to the list.
func (s *service) enter(root string) error {
	return edit(root, listFile, lastWord, s.word()+lastWord)
}

// edit replaces a text that a file has once.
func edit(root, file, from, to string) error {
	path := filepath.Join(root, file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.Count(string(text), from) != 1 {
		return fmt.Errorf("%s does not have %q once: edit it by hand", file, from)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o644)
}

func (s *service) sums() string { return s.Name + "/scaffold.sum" }

// writeSums stores a hash of each file, by which remove recognises edited files.
func (s *service) writeSums(root string) error {
	var text strings.Builder
	paths, err := s.written(root)
	if err != nil {
		return err
	}
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), path)
	}
	return os.WriteFile(filepath.Join(root, s.sums()), []byte(text.String()), 0o644)
}

// written are the files that make service wrote: those of the list, or of the templates
// where there is no list yet.
func (s *service) written(root string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(root, s.sums()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for line := range strings.Lines(string(text)) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		paths = append(paths, path)
	}
	if err != nil {
		for path := range s.files() {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// remove deletes what make service wrote, unless one of the files was edited.
func (s *service) remove(root string) error {
	text, err := os.ReadFile(filepath.Join(root, s.sums()))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s does not exist: %s was not written by make service, or has been removed", s.sums(), s.Name)
	}
	if err != nil {
		return err
	}
	var paths, edited []string
	for line := range strings.Lines(string(text)) {
		sum, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(content)) != sum {
			edited = append(edited, path)
		}
		paths = append(paths, path)
	}
	unknown, err := s.unknown(root, paths)
	if err != nil {
		return err
	}
	if edited = append(edited, unknown...); len(edited) > 0 {
		return fmt.Errorf("%s edited since make service wrote the scaffold, nothing is removed: remove the service by hand", strings.Join(edited, ", "))
	}
	client, err := s.clientWithout(root)
	if err != nil {
		return err
	}
	if err := s.removeField(root); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, clientFile), client, 0o644); err != nil {
		return err
	}
	if err := edit(root, listFile, s.word(), ""); err != nil {
		return err
	}
	for _, path := range append(paths, s.sums()) {
		if err := os.Remove(filepath.Join(root, path)); err != nil {
			return err
		}
	}
	for _, folder := range []string{s.Name, "proto/" + s.Name + "/v1", "proto/" + s.Name} {
		if err := os.Remove(filepath.Join(root, folder)); err != nil {
			return err
		}
	}
	return nil
}

// unknown are files of the service's folders that make service did not write.
func (s *service) unknown(root string, known []string) (found []string, err error) {
	for _, folder := range []string{s.Name, "proto/" + s.Name + "/v1"} {
		entries, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			path := folder + "/" + entry.Name()
			if path != s.sums() && !slices.Contains(known, path) {
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// next prints the decisions that remain.
func (s *service) next(root string, out io.Writer) error {
	paths, err := s.written(root)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s runs in gatehouse up and serve, and as gatehouse %s. It is made of\n\n", s.Name, s.Name)
	for _, path := range paths {
		fmt.Fprintf(out, "  %s\n", path)
	}
	part, err := s.hasField(root)
	if err != nil {
		return err
	}
	if part {
		fmt.Fprintf(out, "\none word in %s, one entry in %s,\nand the field %s of GetMeResponse in %s.\n", listFile, clientFile, s.Name, answerFile)
	} else {
		fmt.Fprintf(out, "\none word in %s, and one entry in %s.\n", listFile, clientFile)
	}
	fmt.Fprint(out, "What is left to decide:\n\n")
	fmt.Fprintf(out, "  1. proto/%s/v1/%s_service.proto: the fields of one %s\n", s.Name, s.Singular, s.Singular)
	fmt.Fprintf(out, "  2. proto/bff/v1/%s_service.proto: what callers see of it, who may call, and how often\n", s.Singular)
	if slices.Contains(paths, s.Name+"/schema.sql") {
		fmt.Fprintf(out, "  3. %s/schema.sql: its columns, and the indexes of your statements\n", s.Name)
		fmt.Fprintf(out, "  4. %s/*.go and bff/%s_service.go: the statements, and the fields that the gateway copies\n", s.Name, s.Singular)
	} else {
		fmt.Fprintf(out, "  3. %s/service.go and bff/%s_service.go: the answers, and the fields that the gateway copies\n", s.Name, s.Singular)
	}
	if part {
		fmt.Fprintf(out, "  5. bff/%s_part.go: which %s the answer of GetMe has\n", s.Singular, s.Name)
	}
	fmt.Fprintf(out, "\nThen run make gen, and go test ./%s. make remove-service NAME=%s removes it\nwhile no file is edited.\n", s.Name, s.Name)
	return nil
}
