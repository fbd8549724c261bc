// Command generate writes the files that belong to the Helm chart: the copies that it
// has of the alert rules and dashboards, the schema of its values, the page that documents
// them, and the plain manifests. make gen runs it twice, because the manifests are rendered
// from the tree:
//
//	generate chart ROOT FOLDER
//	generate manifests ROOT FOLDER
package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"

	"gatehouse/tools/kubernetes/chart"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: generate chart|manifests ROOT FOLDER")
	}
	if err := generate(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func generate(step, root, folder string) error {
	files := map[string][]byte{}
	switch step {
	case "chart":
		copies, err := chart.Copies(root)
		if err != nil {
			return fmt.Errorf("copy into the chart: %w", err)
		}
		derived, err := chart.Derived(root)
		if err != nil {
			return fmt.Errorf("derive from the values: %w", err)
		}
		maps.Copy(files, copies)
		maps.Copy(files, derived)
	case "manifests":
		plain, err := chart.Plain(root)
		if err != nil {
			return fmt.Errorf("render the manifests: %w", err)
		}
		files = plain
	default:
		return errors.New("usage: generate chart|manifests ROOT FOLDER")
	}
	for path, text := range files {
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
