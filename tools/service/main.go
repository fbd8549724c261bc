// Command service writes a new service of the application, or removes one that nobody
// has edited: make service and make remove-service.
//
// NAME/scaffold.sum lists the files that it wrote, with their hashes. It edits only one
// existing file: it adds one word to app/services.go.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "service: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: service add|sums|next|remove ROOT NAME [option=value …]")
	}
	command, root := args[0], args[1]
	s, err := newService(args[2], args[3:])
	if err != nil {
		return err
	}
	switch command {
	case "add":
		return s.add(root)
	case "sums":
		return s.writeSums(root)
	case "next":
		return s.next(root, os.Stdout)
	case "remove":
		return s.remove(root)
	}
	return fmt.Errorf("unknown command %q", command)
}
