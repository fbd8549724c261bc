package checks

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
)

// keyed is the sentence of the README that names the methods.
var keyed = regexp.MustCompile(`These methods accept a key: ([^.]+)\.`)

// TestTheReadmeNamesTheMethodsThatTakeAnIdempotencyKey compares the list with the schema.
func TestTheReadmeNamesTheMethodsThatTakeAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sentence := keyed.FindSubmatch(text)
	if sentence == nil {
		t.Fatalf("README.md has no sentence like %s", keyed)
	}
	got := regexp.MustCompile(`\b[A-Z]\w+`).FindAllString(string(sentence[1]), -1)
	slices.Sort(got)
	want := methodsWithKeys()
	if len(want) < 10 {
		t.Fatalf("the schema has the methods %v", want)
	}
	if !slices.Equal(got, want) {
		t.Errorf("README.md names %v\nthe schema marks %v", got, want)
	}
}

func methodsWithKeys() (names []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("bff.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				method := methods.Get(j)
				if policy, _ := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method); policy.GetIdempotencyKey() {
					names = append(names, string(method.Name()))
				}
			}
		}
		return true
	})
	slices.Sort(names)
	return names
}
