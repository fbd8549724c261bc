package schema_test

import (
	"testing"

	"gatehouse/internal/schema"
)

func TestHasUserReadsBothForms(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"postgres://ada@host/db":                   true,
		"postgres://ada:secret@host:5432/db":       true,
		"postgres://host/db?user=ada":              true,
		"postgres://host/db?sslmode=disable":       false,
		"postgres://host/users?application_name=@": false,
		"host=10.0.2.2 dbname=users":               false,
		"host=10.0.2.2 user = ada dbname=db":       true,
		"host=10.0.2.2 application_name='user=x'":  false,
	} {
		if got := schema.HasUser(url); got != want {
			t.Errorf("%s: got %t, want %t", url, got, want)
		}
	}
}
