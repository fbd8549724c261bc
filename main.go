// Command gatehouse is the front door for an application: sign-up, sign-in,
// sessions and user management. One binary runs the gateway, the services
// behind it, or all of them in one process.
package main

import (
	_ "embed"

	"gatehouse/app"
)

//go:embed schema.sql
var schemaSQL string

func main() { app.Main(schemaSQL) }
