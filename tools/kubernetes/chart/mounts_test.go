package chart

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// sourceAt is the ConfigMap or Secret that a pod mounts at a folder, such as secret/providers.
func (p pod) sourceAt(folder string) string {
	for _, mount := range p.container().VolumeMounts {
		if mount.MountPath != folder || !mount.ReadOnly {
			continue
		}
		i := slices.IndexFunc(p.spec.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 {
			return ""
		}
		switch volume := p.spec.Spec.Volumes[i]; {
		case volume.Secret != nil:
			return "secret/" + volume.Secret.SecretName
		case volume.ConfigMap != nil:
			return "configMap/" + volume.ConfigMap.Name
		}
	}
	return ""
}

// source is where an entry of files or mounts comes from.
func source(entry any) string {
	given := entry.(map[string]any)
	if name, ok := given["secret"].(string); ok {
		return "secret/" + name
	}
	name, _ := given["configMap"].(string)
	return "configMap/" + name
}

// Each file of the values is mounted where its setting says, from the ConfigMap or Secret
// that the values name, in the pods that read it alone. The folders of mounts are in every pod.
func TestFilesAreMountedWhereTheirSettingSays(t *testing.T) {
	secrets := 0
	eachSet(t, func(t *testing.T, one installation) {
		files, _ := one.values["files"].(map[string]any)
		mounts, _ := one.values["mounts"].(map[string]any)
		for _, pod := range pods(one) {
			for name, entry := range files {
				folder, value := "/etc/gatehouse/files/"+name, pod.environment()[name]
				want := source(entry)
				if value == "" {
					want = ""
				} else if strings.HasPrefix(want, "secret/") {
					secrets++
				}
				if got := pod.sourceAt(folder); got != want {
					t.Errorf("%s mounts %q at %s, want %q", pod.command(), got, folder, want)
				}
				key, _ := entry.(map[string]any)["key"].(string)
				if value != "" && value != path.Join(folder, key) {
					t.Errorf("%s: %s is %q, want the key %q of %s", pod.command(), name, value, key, folder)
				}
			}
			for name, entry := range mounts {
				if got := pod.sourceAt("/etc/gatehouse/mounts/" + name); got != source(entry) {
					t.Errorf("%s mounts %q for %s, want %q", pod.command(), got, name, source(entry))
				}
			}
			names := map[string]bool{}
			for _, volume := range pod.spec.Spec.Volumes {
				if names[volume.Name] = true; volume.Secret != nil && (volume.Secret.DefaultMode == nil || *volume.Secret.DefaultMode != 0o440) {
					t.Errorf("%s: the files of %s have the mode %v, want 0440", pod.command(), volume.Name, volume.Secret.DefaultMode)
				}
			}
			if len(names) != len(pod.spec.Spec.Volumes) || len(names) != len(pod.container().VolumeMounts) {
				t.Errorf("%s has the volumes %v and %d mounts", pod.command(), slices.Sorted(maps.Keys(names)), len(pod.container().VolumeMounts))
			}
		}
	})
	if secrets == 0 {
		t.Error("no example mounts a file of a Secret")
	}
}
