package chart

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is one entry of values.yaml.
type value struct {
	path    string
	comment string
	node    *yaml.Node
	entries []entry // of a map
}

type entry struct {
	name  string
	value *value
}

// describe reads values.yaml with its comments. A value without a comment of its own
// belongs to a map whose entries have one.
func describe(text []byte) (*value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 {
		return nil, errors.New("it is not one document")
	}
	root := newValue("", "", document.Content[0])
	return root, root.check()
}

func newValue(path, comment string, node *yaml.Node) *value {
	v := &value{path: path, comment: comment, node: node}
	if node.Kind != yaml.MappingNode {
		return v
	}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		// Only the block of comment lines next to the key belongs to it.
		blocks := strings.Split(key.HeadComment, "\n\n")
		var lines []string
		for line := range strings.Lines(blocks[len(blocks)-1]) {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
		}
		v.entries = append(v.entries, entry{key.Value, newValue(strings.TrimPrefix(path+"."+key.Value, "."), strings.Join(lines, " "), node.Content[i+1])})
	}
	return v
}

// open reports whether the names of a map's entries are the operator's choice.
func (v *value) open() bool { return v.comment != "" && v.flat() }

// flat reports whether nothing below a value has a comment, such as below resources.
func (v *value) flat() bool {
	for _, entry := range v.entries {
		if entry.value.comment != "" || !entry.value.flat() {
			return false
		}
	}
	return true
}

func (v *value) check() error {
	if v.path != "" && v.comment == "" && v.flat() {
		return fmt.Errorf("%s has no comment", v.path)
	}
	if v.path != "" && v.flat() {
		return nil
	}
	for _, entry := range v.entries {
		if err := entry.value.check(); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

var (
	duration    = object{"type": "string", "pattern": `^(0|([0-9]+(\.[0-9]+)?(ms|h|m|s))+)$`}
	count       = object{"type": "integer", "minimum": 1}
	settings    = object{"type": "object", "propertyNames": object{"pattern": "^[A-Z][A-Z0-9_]*$"}, "additionalProperties": object{"type": "string"}}
	port        = object{"type": "integer", "minimum": 1, "maximum": 65535}
	ports       = object{"type": "array", "minItems": 1, "items": port}
	texts       = object{"type": "array", "items": object{"type": "string"}}
	labels      = object{"type": "object", "additionalProperties": object{"type": "string"}}
	objectNames = object{"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}
)

func oneOf(words ...string) object { return object{"type": "string", "enum": words} }

// volume is an object with either a ConfigMap or a Secret.
func volume(properties object) object {
	return object{
		"type": "object", "additionalProperties": false, "properties": properties,
		"oneOf": []object{{"required": []string{"configMap"}}, {"required": []string{"secret"}}},
	}
}

// shapes are the schemas of values about which the default says too little, by path.
var shapes = map[string]object{
	"mode":              oneOf("roles", "serve"),
	"nameOverride":      {"type": "string", "maxLength": 30},
	"image.digest":      {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
	"image.pullPolicy":  oneOf("IfNotPresent", "Always", "Never"),
	"image.pullSecrets": texts,
	"settings":          settings,
	"existingSecret":    objectNames,
	"secrets": {"type": "object", "propertyNames": object{"pattern": "^[A-Z][A-Z0-9_]*$"}, "additionalProperties": object{
		"type": []string{"object", "null"}, "additionalProperties": false, "properties": object{"secret": objectNames, "key": object{"type": "string", "minLength": 1}}}},
	"files": {"type": "object", "additionalProperties": volume(object{"configMap": objectNames, "secret": objectNames, "key": object{"type": "string"}})},
	"mounts": {"type": "object", "propertyNames": object{"pattern": "^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$"},
		"additionalProperties": volume(object{"configMap": objectNames, "secret": objectNames})},
	"environment":                               {"type": "object", "propertyNames": object{"pattern": "^(OTEL_|PG|GOGC$|GODEBUG$|GOMAXPROCS$)"}, "additionalProperties": object{"type": "string"}},
	"schema.deadlineSeconds":                    count,
	"schema.serviceAccountAnnotations":          labels,
	"defaults.replicas":                         {"type": "integer", "minimum": 0},
	"defaults.settings":                         settings,
	"defaults.autoscaling.minReplicas":          count,
	"defaults.autoscaling.maxReplicas":          count,
	"defaults.autoscaling.cpuPercent":           {"type": "integer", "minimum": 0, "maximum": 1000},
	"defaults.disruptionBudget.maxUnavailable":  {"type": []string{"integer", "string"}, "minimum": 1, "pattern": "^[1-9][0-9]?%$"},
	"defaults.topologySpread.whenUnsatisfiable": oneOf("ScheduleAnyway", "DoNotSchedule"),
	"defaults.podAnnotations":                   labels,
	"defaults.podLabels":                        labels,
	"defaults.nodeSelector":                     labels,
	"defaults.serviceAccountAnnotations":        labels,
	"service.type":                              oneOf("ClusterIP", "LoadBalancer", "NodePort"),
	"service.port":                              port,
	"service.annotations":                       labels,
	"service.externalTrafficPolicy":             oneOf("", "Local", "Cluster"),
	"ingress.annotations":                       labels,
	"ingress.hosts":                             texts,
	"httpRoute.hostnames":                       texts,
	"httpRoute.annotations":                     labels,
	"networkPolicy.databasePorts":               ports,
	"networkPolicy.smtpPorts":                   ports,
	"networkPolicy.redisPorts":                  ports,
	"networkPolicy.internetPorts":               ports,
	"monitoring.serviceMonitor.interval":        duration,
	"monitoring.serviceMonitor.labels":          labels,
	"monitoring.prometheusRule.labels":          labels,
	"monitoring.dashboards.labels":              labels,
}

var definition = object{"type": "object", "additionalProperties": false, "required": []string{"port"}, "properties": object{
	"port": port, "tables": object{"type": "boolean"}, "behindGateway": object{"type": "boolean"}, "calls": texts, "settings": texts}}

// schema returns the JSON Schema of values.yaml.
func (v *value) schema() (object, error) {
	whole, err := v.shape()
	if err != nil {
		return nil, err
	}
	properties := whole["properties"].(object)
	role := object{"type": "object", "additionalProperties": false, "properties": object{"definition": definition}}
	for name, shape := range properties["defaults"].(object)["properties"].(object) {
		role["properties"].(object)[name] = shape
	}
	properties["services"].(object)["additionalProperties"] = role
	properties["global"] = object{"type": "object"} // Helm adds it
	whole["$schema"] = "http://json-schema.org/draft-07/schema#"
	return whole, nil
}

func (v *value) shape() (object, error) {
	shape := object{}
	if special, ok := shapes[v.path]; ok {
		for key, value := range special {
			shape[key] = value
		}
	} else {
		switch {
		case v.node.Kind == yaml.MappingNode && v.open():
			shape["type"] = "object"
		case v.node.Kind == yaml.MappingNode:
			properties := object{}
			for _, entry := range v.entries {
				own, err := entry.value.shape()
				if err != nil {
					return nil, err
				}
				properties[entry.name] = own
			}
			shape["type"], shape["properties"], shape["additionalProperties"] = "object", properties, false
		case v.node.Kind == yaml.SequenceNode:
			shape["type"] = "array"
		default:
			kind, ok := map[string]string{"!!str": "string", "!!int": "integer", "!!bool": "boolean"}[v.node.Tag]
			if !ok {
				return nil, fmt.Errorf("%s: no type for %s", v.path, v.node.Tag)
			}
			shape["type"] = kind
		}
	}
	if v.comment != "" {
		shape["description"] = v.comment
	}
	return shape, nil
}

const pageHead = `# Values of the Helm chart

Made by ` + "`make gen`" + ` from ` + "`deploy/helm/gatehouse/values.yaml`" + `. [Run it on Kubernetes](../how-to/kubernetes.md) shows how to use them.

| value | default | meaning |
| --- | --- | --- |
`

// page returns the page that documents the values.
func (v *value) page() string {
	var rows strings.Builder
	rows.WriteString(pageHead)
	v.writeRows(&rows)
	return rows.String()
}

func (v *value) writeRows(rows *strings.Builder) {
	if v.comment != "" {
		shown := "`" + flow(v.node) + "`"
		if flow(v.node) == `""` {
			shown = "none"
		}
		fmt.Fprintf(rows, "| `%s` | %s | %s |\n", v.path, shown, strings.ReplaceAll(v.comment, "|", `\|`))
	}
	if v.path != "" && v.flat() {
		return
	}
	for _, entry := range v.entries {
		entry.value.writeRows(rows)
	}
}

// flow returns a value on one line.
func flow(node *yaml.Node) string {
	var items []string
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			items = append(items, node.Content[i].Value+": "+flow(node.Content[i+1]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	case yaml.SequenceNode:
		for _, item := range node.Content {
			items = append(items, flow(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	if node.Value == "" || node.Style == yaml.DoubleQuotedStyle {
		return `"` + node.Value + `"`
	}
	return node.Value
}
