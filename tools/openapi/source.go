package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// declaredError is an error as the Go source declares it.
type declaredError struct {
	reason, code, message string
	field                 string // that it is about; "" for none
	retry                 bool   // it says when to try again
}

// sourceFolders are where public errors are declared.
var sourceFolders = []string{"auth", "auth/accounts", "auth/idempotency", "auth/links", "auth/outbox", "auth/passwords", "auth/throttle", "bff", "internal/fault", "internal/password", "internal/rpc", "users"}

// declaredErrors finds the calls of New and Invalid (internal/fault) and
// returns what they declare, by reason.
func declaredErrors(folder string) (map[string]declaredError, error) {
	source := &source{files: token.NewFileSet(), constants: map[string]string{}, found: map[string]declaredError{}}
	for _, sub := range sourceFolders {
		if err := source.parse(filepath.Join(folder, filepath.FromSlash(sub))); err != nil {
			return nil, err
		}
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
	constants map[string]string // by package and name
	in        string            // the package that is looked at
	found     map[string]declaredError
}

func (s *source) parse(folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s: %w", folder, fs.ErrNotExist)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s.parsed = append(s.parsed, file)
	}
	return nil
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
		switch name := calledName(call); {
		case name == "WithRetry" && len(call.Args) == 2:
			retried[call.Args[0]] = true
			return true
		case name == "New" && len(call.Args) == 3:
			one = declaredError{reason: s.text(call.Args[1]), code: codeOf(call.Args[0]), message: s.text(call.Args[2])}
		case name == "Invalid" && len(call.Args) == 3:
			one = declaredError{reason: s.text(call.Args[0]), code: "invalid_argument", message: s.text(call.Args[2]), field: s.text(call.Args[1])}
		}
		if one.reason == "" { // no error of ours, or one whose reason is handed in
			return true
		}
		one.retry = retried[call]
		if known, ok := s.found[one.reason]; ok && known.code != one.code {
			err = fmt.Errorf("%s: %s is %s here, and %s elsewhere", s.files.Position(call.Pos()), one.reason, one.code, known.code)
		} else if !ok {
			s.found[one.reason] = one
		}
		return true
	})
	return err
}

// calledName is the name of a function of this package, or of package fault.
func calledName(call *ast.CallExpr) string {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		return function.Name
	case *ast.SelectorExpr:
		if from, ok := function.X.(*ast.Ident); ok && from.Name == "fault" {
			return function.Sel.Name
		}
	}
	return ""
}

// codeOf turns connect.CodeInvalidArgument into invalid_argument.
func codeOf(expression ast.Expr) string {
	selector, ok := expression.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	return snake(strings.TrimPrefix(selector.Sel.Name, "Code"))
}

func snake(camel string) string {
	var text strings.Builder
	for i, c := range camel {
		if unicode.IsUpper(c) && i > 0 {
			text.WriteByte('_')
		}
		text.WriteRune(unicode.ToLower(c))
	}
	return text.String()
}

var formatVerb = regexp.MustCompile(`%[.0-9]*[a-z]`)

// text is a string as far as the source alone tells; "" if it doesn't.
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
	case *ast.CallExpr:
		if function, ok := e.Fun.(*ast.SelectorExpr); ok && function.Sel.Name == "Sprintf" {
			return formatVerb.ReplaceAllString(s.text(e.Args[0]), "N")
		}
	}
	return ""
}
