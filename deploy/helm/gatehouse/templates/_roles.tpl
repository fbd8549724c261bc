{{/* Sets the values of the second map in the first one. Helm's own merge functions skip false and 0. */}}
{{- define "gatehouse.override" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (index $into $key)) -}}
{{- include "gatehouse.override" (list (index $into $key) $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The services by name, as JSON: those of files/services.yaml and those that the values define.
*/}}
{{- define "gatehouse.services" -}}
{{- $known := .Files.Get "files/services.yaml" | fromYaml -}}
{{- $services := $known.services -}}
{{- range $name, $own := .Values.services -}}
{{- if $own.definition -}}
{{- if hasKey $services $name -}}
{{- fail (printf "services.%s.definition: the chart knows this service already; remove the definition" $name) -}}
{{- end -}}
{{- $definition := deepCopy $own.definition -}}
{{- $_ := set $definition "settings" (concat (default list $definition.settings) $known.common) -}}
{{- $_ := set $services $name $definition -}}
{{- if $definition.behindGateway -}}
{{- $gateway := index $services $known.gateway -}}
{{- $_ := set $gateway "calls" (append $gateway.calls $name) -}}
{{- end -}}
{{- else if not (or (hasKey $services $name) (eq $name "serve")) -}}
{{- fail (printf "services.%s: the chart does not know this service; give it a definition" $name) -}}
{{- end -}}
{{- end -}}
{{- toJson $services -}}
{{- end -}}

{{/*
The roles that run, by name, as JSON: each service, or serve alone. Each has port, calls,
tables (the services whose database it uses), settings (those that it reads), front (whether
callers reach it) and values.
*/}}
{{- define "gatehouse.roles" -}}
{{- $known := .Files.Get "files/services.yaml" | fromYaml -}}
{{- $services := include "gatehouse.services" . | fromJson -}}
{{- $roles := dict -}}
{{- if eq .Values.mode "serve" -}}
{{- $tables := list -}}
{{- range $name, $service := $services -}}
{{- if $service.tables -}}{{- $tables = append $tables $name -}}{{- end -}}
{{- end -}}
{{- $_ := set $roles "serve" (dict "port" $known.serve.port "calls" list "tables" $tables "settings" $known.serve.settings "front" true) -}}
{{- else -}}
{{- range $name, $service := $services -}}
{{- $tables := ternary (list $name) list (eq (toString $service.tables) "true") -}}
{{- $_ := set $roles $name (dict "port" $service.port "calls" (default list $service.calls) "tables" $tables "settings" $service.settings "front" (eq $name $known.gateway)) -}}
{{- end -}}
{{- end -}}
{{- $values := .Values -}}
{{- range $name, $role := $roles -}}
{{- $own := deepCopy $values.defaults -}}
{{- include "gatehouse.override" (list $own (omit (default dict (index $values.services $name)) "definition")) -}}
{{- $_ := set $role "values" $own -}}
{{- end -}}
{{- toJson $roles -}}
{{- end -}}

{{- define "gatehouse.databaseSetting" -}}
{{ . | upper | replace "-" "_" }}_DATABASE_URL
{{- end -}}

{{/*
The settings that one role reads from Secrets, as JSON: each with secret and key. The
URLs of databases need no entry in the values.
*/}}
{{- define "gatehouse.secrets" -}}
{{- $values := .root.Values -}}
{{- $all := dict -}}
{{- range .tables -}}
{{- $_ := set $all (include "gatehouse.databaseSetting" .) dict -}}
{{- end -}}
{{- $settings := .settings -}}
{{- range $name, $source := $values.secrets -}}
{{- if or (has $name $settings) (hasKey $all $name) -}}
{{- $_ := set $all $name (default dict $source) -}}
{{- end -}}
{{- end -}}
{{- $found := dict -}}
{{- range $name, $source := $all -}}
{{- $_ := set $found $name (dict "secret" (default $values.existingSecret $source.secret) "key" (default $name $source.key)) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/*
Refuses values with which a role would not start, or which would have no effect.
*/}}
{{- define "gatehouse.check" -}}
{{- $values := .Values -}}
{{- $known := .Files.Get "files/services.yaml" | fromYaml -}}
{{- $all := concat $known.serve.settings $known.schema.settings -}}
{{- $own := list "GATEHOUSE_LISTEN" "GATEHOUSE_OPS_LISTEN" "DATABASE_URL" -}}
{{- range $name, $service := include "gatehouse.services" . | fromJson -}}
{{- $all = concat $all $service.settings -}}
{{- range $service.calls -}}{{- $own = append $own (printf "%s_URL" (. | upper | replace "-" "_")) -}}{{- end -}}
{{- if $service.tables -}}{{- $all = append $all (include "gatehouse.databaseSetting" $name) -}}{{- end -}}
{{- end -}}
{{- $places := dict "settings" $values.settings "secrets" $values.secrets "files" $values.files -}}
{{- range $service, $one := $values.services -}}
{{- $_ := set $places (printf "services.%s.settings" $service) (default dict $one.settings) -}}
{{- end -}}
{{- range $place, $named := $places -}}
{{- range $name, $_ := $named -}}
{{- if has $name $own -}}
{{- fail (printf "%s.%s: the chart sets it; remove it" $place $name) -}}
{{- else if not (has $name $all) -}}
{{- fail (printf "%s.%s: no role reads a setting of this name; see docs/reference/settings.md" $place $name) -}}
{{- else if and (ne $place "secrets") (or (hasKey $values.secrets $name) (has $name $known.secrets)) -}}
{{- fail (printf "%s.%s: it is a secret; name its Secret in secrets.%s instead" $place $name $name) -}}
{{- else if and (ne $place "files") (hasKey $values.files $name) -}}
{{- fail (printf "%s.%s: it is in files too; remove one" $place $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $values.settings.GATEHOUSE_PUBLIC_URL -}}
{{- fail "settings.GATEHOUSE_PUBLIC_URL: set it to the address at which browsers reach the gateway, such as https://accounts.example.com" -}}
{{- end -}}
{{- if and (eq (default "verify" $values.settings.GATEHOUSE_REGISTRATION) "verify") (not (hasKey $values.secrets "SMTP_URL")) -}}
{{- fail "settings.GATEHOUSE_REGISTRATION: verify needs mail; add SMTP_URL to secrets, or set it to open or closed" -}}
{{- end -}}
{{- if and $values.files.GATEHOUSE_UPSTREAMS (not (hasKey $values.secrets "GATEHOUSE_IDENTITY_KEY")) -}}
{{- fail "files.GATEHOUSE_UPSTREAMS: add GATEHOUSE_IDENTITY_KEY to secrets, which upstreams need" -}}
{{- end -}}
{{- if and (or $values.ingress.enabled $values.httpRoute.enabled) (not $values.settings.GATEHOUSE_TRUSTED_PROXIES) -}}
{{- fail "settings.GATEHOUSE_TRUSTED_PROXIES: set it to the network of the proxy's pods, such as 10.0.0.0/8; otherwise all callers share the rates of one address" -}}
{{- end -}}
{{- if not (contains "gatehouse" (include "gatehouse.fullname" .)) -}}
{{- fail (printf "fullnameOverride: the objects would be called %s, without the gatehouse that the alert rules select by; set it to a name of at most 40 characters that contains gatehouse" (include "gatehouse.fullname" .)) -}}
{{- end -}}
{{- end -}}
