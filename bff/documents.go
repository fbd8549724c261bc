package bff

import (
	"fmt"

	"gatehouse/bff/passthrough"
	"gatehouse/gen"
	"gatehouse/internal/openapi"
	"gatehouse/internal/policy"
	"gatehouse/internal/postman"
	"gatehouse/web"
)

// ownPackage is the package of the gateway's own methods.
const ownPackage = "bff.v1"

// documents describe all methods that the gateway serves. They are nil if those are its
// own alone, which the embedded documents describe.
type documents struct{ openAPI, postman []byte }

// newDocuments adds the methods of other packages than the gateway's to the embedded
// documents. reasonsOf returns the reasons that the errors of an upstream's method may
// have in addition to the gateway's, and whether it is one; nil for no upstreams. It returns an
// error if a name or a path of a method is in use.
func newDocuments(methods []*policy.Method, reasonsOf func(*policy.Method) (reasons []string, published bool)) (documents, error) {
	var others []openapi.Method
	for _, method := range methods {
		if method.Descriptor.ParentFile().Package() == ownPackage {
			continue
		}
		other := openapi.Method{Policy: method}
		if reasonsOf != nil {
			var published bool
			if other.Reasons, published = reasonsOf(method); published {
				other.Always = passthrough.Reasons()
			}
		}
		others = append(others, other)
	}
	if len(others) == 0 {
		return documents{}, nil
	}
	declared, err := openapi.ReadErrors(gen.Reasons())
	if err != nil {
		return documents{}, err
	}
	added, err := openapi.Document(openapi.Config{Methods: others, Errors: declared, Lenient: true})
	if err != nil {
		return documents{}, fmt.Errorf("describe the methods of upstreams: %w", err)
	}
	var whole documents
	if whole.openAPI, err = openapi.Merge(web.OpenAPI(), added); err != nil {
		return documents{}, fmt.Errorf("describe the methods of upstreams: %w", err)
	}
	whole.postman, err = postman.Add(web.Postman(), added)
	return whole, err
}
