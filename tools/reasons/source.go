package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// declaredError is a public error as the Go source declares it.
type declaredError struct {
	Reason  string `json:"reason"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"` // the request field at fault
	Retry   bool   `json:"retry,omitempty"` // carries a delay after which to retry
}

// skippedFolders hold no declarations of public errors.
var skippedFolders = []string{"bench", "clients", "docs", "e2e", "gen", "node_modules", "testdata", "tools", "web"}

// declaredErrors returns, by reason, the errors that the Go source below a folder
// declares: the calls of New and Invalid of package fault. If several in one package
// have the same reason, it returns the first. It refuses a reason that two packages
// declare, because their sentences would differ sooner or later.
func declaredErrors(folder string) (map[string]declaredError, error) {
	source := &source{files: token.NewFileSet(), constants: map[string]string{}, found: map[string]declaredError{}, places: map[string]string{}}
	if err := source.parse(folder); err != nil {
		return nil, err
	}
	for _, file := range source.parsed {
		source.in = file.Name.Name
		source.constantsOf(file)
	}
	for _, file := range source.parsed {
		source.in = file.Name.Name
		if err := source.errorsOf(file); err != nil {
			return nil, err
		}
	}
	return source.found, nil
}

type source struct {
	files     *token.FileSet
	parsed    []*ast.File
	constants map[string]string // by package.Name
	in        string            // the package of the file being read
	found     map[string]declaredError
	places    map[string]string // the folder of each found error
}

func (s *source) parse(folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if path != folder && (slices.Contains(skippedFolders, entry.Name()) || strings.HasPrefix(entry.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
		s.parsed = append(s.parsed, file)
		return err
	})
}

func (s *source) constantsOf(file *ast.File) {
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) {
				s.constants[s.in+"."+name.Name] = s.text(spec.Values[i])
			}
		}
		return false
	})
}

func (s *source) errorsOf(file *ast.File) (err error) {
	retried := map[ast.Node]bool{}
	ast.Inspect(file, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		var one declaredError
		switch name := s.calledName(call); {
		case name == "WithRetry" && len(call.Args) == 2:
			retried[call.Args[0]] = true
			return true
		case name == "New" && len(call.Args) == 3:
			one = declaredError{Reason: s.text(call.Args[1]), Code: codeOf(call.Args[0]), Message: s.text(call.Args[2])}
		case name == "Invalid" && len(call.Args) == 3:
			one = declaredError{Reason: s.text(call.Args[0]), Code: "invalid_argument", Message: s.text(call.Args[2]), Field: s.text(call.Args[1])}
		default:
			return true
		}
		one.Retry = retried[call]
		switch known, ok := s.found[one.Reason]; {
		case one.Reason == "" && s.in == "fault": // a constructor, which takes the reason as a parameter
		case one.Reason == "":
			err = fmt.Errorf("%s: the reason is neither a string nor a constant", s.files.Position(call.Pos()))
		case !ok:
			s.found[one.Reason], s.places[one.Reason] = one, s.folderOf(call)
		case known.Code != one.Code:
			err = fmt.Errorf("%s: %s has the code %s here, and %s elsewhere", s.files.Position(call.Pos()), one.Reason, one.Code, known.Code)
		case s.places[one.Reason] != s.folderOf(call) && !s.isShared(one.Reason):
			err = fmt.Errorf("%s: %s is declared in %s: use that declaration, or move it to a package that both import", s.files.Position(call.Pos()), one.Reason, s.places[one.Reason])
		}
		return true
	})
	return err
}

func (s *source) folderOf(node ast.Node) string {
	return filepath.Dir(s.files.Position(node.Pos()).Filename)
}

// isShared reports whether a reason is a constant of package fault. Several packages
// may declare errors with such a reason.
func (s *source) isShared(reason string) bool {
	for name, value := range s.constants {
		if strings.HasPrefix(name, "fault.") && value == reason {
			return true
		}
	}
	return false
}

// calledName returns the name of the function of package fault that is called; ""
// for any other function.
func (s *source) calledName(call *ast.CallExpr) string {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		if s.in == "fault" {
			return function.Name
		}
	case *ast.SelectorExpr:
		if from, ok := function.X.(*ast.Ident); ok && from.Name == "fault" {
			return function.Sel.Name
		}
	}
	return ""
}

var wordStart = regexp.MustCompile(`([a-z])([A-Z])`)

// codeOf turns connect.CodeInvalidArgument into invalid_argument.
func codeOf(expression ast.Expr) string {
	selector, ok := expression.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	return strings.ToLower(wordStart.ReplaceAllString(strings.TrimPrefix(selector.Sel.Name, "Code"), "${1}_$2"))
}

var formatVerb = regexp.MustCompile(`%[.0-9]*[a-z]`)

// text evaluates a string literal, a constant, a concatenation of these, or a Sprintf,
// whose verbs become N; "" for anything else.
func (s *source) text(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.Ident:
		return s.constants[s.in+"."+e.Name]
	case *ast.SelectorExpr:
		if from, ok := e.X.(*ast.Ident); ok {
			return s.constants[from.Name+"."+e.Sel.Name]
		}
	case *ast.BinaryExpr:
		if left, right := s.text(e.X), s.text(e.Y); e.Op == token.ADD && left != "" && right != "" {
			return left + right
		}
	case *ast.CallExpr:
		if function, ok := e.Fun.(*ast.SelectorExpr); ok && function.Sel.Name == "Sprintf" {
			return formatVerb.ReplaceAllString(s.text(e.Args[0]), "N")
		}
	}
	return ""
}
