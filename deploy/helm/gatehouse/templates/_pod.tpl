{{/* A duration such as 1m30s in whole seconds, rounded up. */}}
{{- define "gatehouse.seconds" -}}
{{- $milliseconds := 0.0 -}}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- if not (regexMatch "^(0|([0-9]+(\\.[0-9]+)?(ms|h|m|s))+)$" .) -}}
{{- fail (printf "%q is not a time such as 10s or 1m30s" .) -}}
{{- end -}}
{{- range regexFindAll "[0-9.]+(ms|h|m|s)" . -1 -}}
{{- $milliseconds = addf $milliseconds (mulf (regexFind "[0-9.]+" . | float64) (index $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- divf $milliseconds 1000 | ceil | int -}}
{{- end -}}

{{/* Nine tenths of a quantity of memory such as 512Mi, in MiB as GOMEMLIMIT has it. */}}
{{- define "gatehouse.memoryLimit" -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000 "" 1 -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|k|M|G)?$" (toString .)) -}}
{{- fail (printf "%v is not a limit of memory such as 512Mi or 1Gi" .) -}}
{{- end -}}
{{- $bytes := mulf (regexFind "^[0-9.]+" (toString .) | float64) (index $units (regexFind "[A-Za-z]*$" (toString .))) -}}
{{- divf (mulf $bytes 0.9) 1048576 | floor | int -}}MiB
{{- end -}}

{{- define "gatehouse.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gatehouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The volume of a pod's secrets: only those that it reads, each under its setting's name. */}}
{{- define "gatehouse.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $source := . }}
      - secret:
          name: {{ $source.secret }}
          items: [{key: {{ $source.key }}, path: {{ $name }}}]
      {{- end }}
{{- end -}}

{{/* The volume of one entry of files or mounts. */}}
{{- define "gatehouse.volume" -}}
- name: {{ .name }}
  {{- if .source.secret }}
  secret: {secretName: {{ .source.secret }}, defaultMode: 0440}
  {{- else }}
  configMap: {name: {{ .source.configMap }}}
  {{- end }}
{{- end -}}

{{/* The environment of a role. */}}
{{- define "gatehouse.environment" -}}
{{- $root := .root -}}
{{- $role := .role -}}
- {name: GATEHOUSE_LISTEN, value: {{ printf ":%v" $role.port | quote }}}
- {name: GATEHOUSE_OPS_LISTEN, value: ":9001"}
{{- with ($role.values.resources.limits).memory }}
- {name: GOMEMLIMIT, value: {{ include "gatehouse.memoryLimit" . }}}
{{- end }}
{{- range $role.calls }}
{{- $callee := index $.services . }}
- {name: {{ . | upper | replace "-" "_" }}_URL, value: "http://{{ include "gatehouse.fullname" $root }}-{{ . }}:{{ $callee.port }}"}
{{- end }}
{{- $settings := merge (deepCopy $role.values.settings) $root.Values.settings }}
{{- range $name, $value := $settings }}
{{- if has $name $role.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- range $name, $_ := .secrets }}
- {name: {{ $name }}_FILE, value: /etc/gatehouse/secrets/{{ $name }}}
{{- end }}
{{- range $name, $file := $root.Values.files }}
{{- if has $name $role.settings }}
- {name: {{ $name }}, value: {{ printf "/etc/gatehouse/files/%s/%s" $name (default "" $file.key) | trimSuffix "/" }}}
{{- end }}
{{- end }}
{{- range $name, $value := $root.Values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}
