package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gatehouse/users/attributes"
)

// userSchemaFlags are the rules for users' attributes.
type userSchemaFlags struct {
	UserSchema string `env:"GATEHOUSE_USER_SCHEMA" placeholder:"FILE" help:"Validate changes of users' attributes against the JSON Schema (draft 2020-12) in this file. If empty, every JSON object is accepted."`

	schema *attributes.Schema
}

func (f *userSchemaFlags) check(c *checks) {
	const name = "GATEHOUSE_USER_SCHEMA"
	if f.UserSchema == "" {
		return
	}
	document, err := os.ReadFile(f.UserSchema)
	if err != nil {
		if failure, ok := errors.AsType[*fs.PathError](err); ok {
			err = failure.Err
		}
		c.add(name, fmt.Sprintf("%s can't be read: %v", f.UserSchema, err), "set it to the path of a JSON Schema, or unset it")
		return
	}
	f.schema, err = attributes.Compile(document)
	if fault, ok := errors.AsType[*attributes.SchemaError](err); ok {
		c.add(name, fmt.Sprintf("%s:%d:%d: %s", f.UserSchema, fault.Line, fault.Column, fault.Problem), fault.Fix)
	}
}
