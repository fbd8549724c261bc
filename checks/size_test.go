package checks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/internal/testneed"
)

// Limits in lines.
const (
	maxFile     = 500
	maxTestFile = 700
	maxFunction = 70
	maxPackage  = 3000 // production code
)

// largePackage is how a package comment gives the reason for more than maxPackage
// lines.
var largePackage = regexp.MustCompile(`(?m)^This package is large because `)

// tracked returns the files of the repository that have not been deleted, new ones
// included, whose names end in one of the endings. Generated code is left out.
func tracked(t *testing.T, endings ...string) []string {
	t.Helper()
	args := []string{"ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "--"}
	for _, ending := range endings {
		args = append(args, "*"+ending)
	}
	listed, err := exec.CommandContext(t.Context(), "git", args...).Output()
	if err != nil {
		testneed.Lacks(t, "this is no Git repository ("+err.Error()+")", "clone it")
	}
	deleted, err := exec.CommandContext(t.Context(), "git", "ls-files", "--deleted").Output()
	if err != nil {
		t.Fatal(err)
	}
	gone := map[string]bool{}
	for _, file := range strings.Fields(string(deleted)) {
		gone[file] = true
	}
	var files []string
	for _, file := range strings.Fields(string(listed)) {
		if !gone[file] && !strings.HasPrefix(file, "gen/") {
			files = append(files, file)
		}
	}
	if len(files) == 0 {
		t.Fatalf("git ls-files found no file that ends in %v", endings)
	}
	return files
}

// tables returns how many lines of a test are data: composite literals.
func tables(files *token.FileSet, function *ast.FuncDecl) (lines int) {
	ast.Inspect(function, func(node ast.Node) bool {
		literal, ok := node.(*ast.CompositeLit)
		if ok {
			lines += files.Position(literal.End()).Line - files.Position(literal.Pos()).Line
		}
		return !ok
	})
	return lines
}

func TestFilesFunctionsAndPackagesAreSmall(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	lines := map[string]int{}       // of a package
	comments := map[string]string{} // of a package
	for _, path := range tracked(t, ".go") {
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if ast.IsGenerated(file) {
			continue
		}
		length := files.Position(file.FileEnd).Line - 1
		limit := maxFile
		if strings.HasSuffix(path, "_test.go") {
			limit = maxTestFile
		} else {
			lines[filepath.Dir(path)] += length
			comments[filepath.Dir(path)] += file.Doc.Text()
		}
		if length > limit {
			t.Errorf("%s has %d lines, over %d: split it by concept", path, length, limit)
		}
		for _, declared := range file.Decls {
			function, ok := declared.(*ast.FuncDecl)
			if !ok {
				continue
			}
			start, end := files.Position(function.Pos()), files.Position(function.End())
			length := end.Line - start.Line + 1
			if strings.HasSuffix(path, "_test.go") {
				length -= tables(files, function)
			}
			if length > maxFunction {
				t.Errorf("%s:%d: %s has %d lines, over %d", path, start.Line, function.Name.Name, length, maxFunction)
			}
		}
	}
	for pkg, length := range lines {
		if length > maxPackage && !largePackage.MatchString(comments[pkg]) {
			t.Errorf("%s has %d lines, over %d: split it, or begin a line of its package comment with \"This package is large because\"", pkg, length, maxPackage)
		}
	}
}
