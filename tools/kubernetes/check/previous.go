package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"gatehouse/tools/kubernetes/chart"
)

var previousLine = regexp.MustCompile(`(?m)^const Previous = "([0-9a-f]{40})"$`)

// previousRelease returns the commit of the previous release.
func previousRelease(root string) (string, error) {
	const path = "internal/release/previous.go"
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return "", err
	}
	found := previousLine.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s has no line like 'const Previous = \"…\"' with a commit", path)
	}
	return string(found[1]), nil
}

// previousChart writes the files of the chart and its examples at a commit into a folder, and
// reports whether the commit has a chart.
func previousChart(ctx context.Context, root, commit, to string) (bool, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("git %s: %w: %s", args[0], err, failed.Stderr)
		}
		return string(out), err
	}
	if _, err := git("cat-file", "-e", commit+"^{commit}"); err != nil {
		return false, fmt.Errorf("the previous release is not in this clone: run git fetch --unshallow: %w", err)
	}
	listed, err := git("ls-tree", "--name-only", commit, chart.Folder+"/Chart.yaml", chart.Examples)
	if err != nil || !strings.Contains(listed, "Chart.yaml") {
		return false, err
	}
	folders := []string{chart.Folder}
	if strings.Contains(listed, chart.Examples) {
		folders = append(folders, chart.Examples)
	}
	archive := filepath.Join(to, "previous.tar")
	if _, err := git(append([]string{"archive", "--output=" + archive, commit, "--"}, folders...)...); err != nil {
		return false, err
	}
	if said, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", to).CombinedOutput(); err != nil {
		return false, fmt.Errorf("tar: %w: %s", err, said)
	}
	return true, nil
}

// upgradesFromPrevious applies what the chart of the previous release renders, and upgrades
// that to what today's chart renders, for each set of values that both have. It says so if
// there is no earlier chart.
func (s *server) upgradesFromPrevious(ctx context.Context, root string, today []set) error {
	commit, err := previousRelease(root)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "gatehouse-previous-chart")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	found, err := previousChart(ctx, root, commit, folder)
	if err != nil {
		return err
	}
	if !found {
		fmt.Printf("the previous release, %.12s, has no chart: no upgrade from it was checked\n", commit)
		return nil
	}
	before, err := valueSets(folder)
	if err != nil {
		return fmt.Errorf("the chart of the previous release: %w", err)
	}
	return s.upgradeEach(ctx, before, today)
}

// upgradeEach upgrades each set of values from one chart to another, in a namespace of its
// own, and back.
func (s *server) upgradeEach(ctx context.Context, before, after []set) error {
	upgraded := 0
	for _, old := range before {
		for _, now := range after {
			if now.name != old.name {
				continue
			}
			namespace := "previous-" + now.name
			if err := s.namespace(ctx, namespace); err != nil {
				return err
			}
			for _, step := range []struct {
				what string
				set  set
			}{{"install", old}, {"upgrade", now}, {"roll back", old}} {
				if err := s.change(ctx, step.set, namespace); err != nil {
					return fmt.Errorf("%s the values %s of the previous chart: %w", step.what, now.name, err)
				}
			}
			upgraded++
		}
	}
	if upgraded == 0 {
		return errors.New("the previous chart and this one have no set of values in common")
	}
	fmt.Printf("%d sets of values were upgraded from the previous release's chart, and rolled back\n", upgraded)
	return nil
}

// change applies a set of values to a release. Helm deletes the Jobs of hooks first, whose
// pods cannot be changed.
func (s *server) change(ctx context.Context, to set, namespace string) error {
	for _, manifest := range to.manifests {
		if !strings.Contains(manifest.Text, "helm.sh/hook-delete-policy: before-hook-creation") {
			continue
		}
		if err := s.remove(ctx, manifest.Text, namespace); err != nil {
			return err
		}
	}
	return s.applyAll(ctx, to, namespace, false)
}
