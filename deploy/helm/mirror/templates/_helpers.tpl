{{/* Names. */}}
{{- define "mirror.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "mirror.fullname" -}}
{{- $name := include "mirror.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The name of objects outside the release's namespace. */}}
{{- define "mirror.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "mirror.fullname" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "mirror.serviceAccount" -}}
{{- default (ternary (include "mirror.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* Labels. The argument is a list: the root, the component. */}}
{{- define "mirror.selector" -}}
app.kubernetes.io/name: {{ include "mirror.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "mirror.labels" -}}
{{- $root := index . 0 }}
{{- include "mirror.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mirror
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods: without versions, so that a new chart alone is not a rollout. */}}
{{- define "mirror.podLabels" -}}
{{- include "mirror.selector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "mirror.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mirror.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The configuration as a map, checked: as YAML, for fromYaml. */}}
{{- define "mirror.config" -}}
{{- $config := dict }}
{{- if trim .Values.config }}
{{- $config = fromYaml .Values.config }}
{{- end }}
{{- if hasKey $config "Error" }}
{{- fail (printf "config is not YAML: %s" $config.Error) }}
{{- end }}
{{- $admin := $config.admin | default dict }}
{{- $metrics := $config.metrics | default dict }}
{{- $cache := $config.cache | default dict }}
{{- range $at, $there := dict
    "listen: set endpoint.port of the chart" (hasKey $config "listen")
    "cache.dir: the chart mounts the folder; set cache.volume of the chart" (hasKey $cache "dir")
    "cache.size: set cache.size of the chart" (hasKey $cache "size")
    "drain: set drainSeconds of the chart" (hasKey $config "drain")
    "admin.listen: set admin.tokenSecret and admin.port of the chart" (hasKey $admin "listen")
    "admin.tokenFile: set admin.tokenSecret of the chart" (hasKey $admin "tokenFile")
    "metrics.listen: set metrics.port of the chart" (hasKey $metrics "listen") }}
{{- if $there }}
{{- fail (printf "config has %s, and remove it from config" $at) }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Whether the mirror uses the API server, with the pod's own account. Empty: it does not. */}}
{{- define "mirror.usesAPI" -}}
{{- $k := (include "mirror.config" . | fromYaml).kubernetes | default dict }}
{{- if and (or $k.events $k.feed $k.coverage (include "mirror.reviewsTokens" .)) (not $k.server) }}yes{{ end }}
{{- end }}

{{/* Whether the mirror asks the API server about tokens of clients. Empty: it does not, or has the keys of an issuer. */}}
{{- define "mirror.reviewsTokens" -}}
{{- $clients := (include "mirror.config" . | fromYaml).clients | default dict }}
{{- with $clients.kubernetes }}
{{- if and .audience (not .issuer) }}yes{{ end }}
{{- end }}
{{- end }}

{{- define "mirror.scheme" -}}
{{- $config := include "mirror.config" . | fromYaml }}
{{- ternary "https" "http" (not (empty $config.tls)) }}
{{- end }}

{{/* A share of a quantity with Mi, Gi or Ti, in MiB: quantity, tenths. Empty where it has another unit. */}}
{{- define "mirror.share" -}}
{{- $quantity := toString (index . 0) }}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?(M|G|T|Mi|Gi|Ti)$" $quantity }}
{{- $unit := dict "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625 }}
{{- $mi := mulf (regexFind "^[0-9.]+" $quantity | float64) (get $unit (regexFind "[A-Z]i?$" $quantity)) }}
{{- printf "%dMiB" (divf (mulf $mi (index . 1)) 10 | floor | int64) }}
{{- end }}
{{- end }}

{{/* Where the cache is. */}}
{{- define "mirror.volume" -}}
{{- $volume := default (ternary "hostPath" "claim" (eq .Values.kind "DaemonSet")) .Values.cache.volume }}
{{- if and (eq $volume "claim") (eq .Values.kind "DaemonSet") }}
{{- fail "cache.volume: claim needs kind: StatefulSet; a DaemonSet has hostPath or emptyDir" }}
{{- else if and (eq $volume "hostPath") (ne .Values.kind "DaemonSet") }}
{{- fail "cache.volume: hostPath needs kind: DaemonSet, since two replicas on one node would share the folder; a StatefulSet has claim or emptyDir" }}
{{- end }}
{{- $volume }}
{{- end }}

{{/* The URL by which nodes reach the mirror. Variables in it are those of the agent. */}}
{{- define "mirror.url" -}}
{{- $e := .Values.endpoint }}
{{- $host := ternary "[$(HOST_IP)]" "$(HOST_IP)" (eq $e.ipFamily "IPv6") }}
{{- if $e.url }}
{{- $e.url }}
{{- else if eq .Values.kind "None" }}
{{- fail "kind: None needs endpoint.url: the URL by which nodes reach the mirror" }}
{{- else if eq $e.type "NodePort" }}
{{- printf "%s://%s:%v" (include "mirror.scheme" .) $host $e.nodePort }}
{{- else if eq $e.type "HostPort" }}
{{- printf "%s://%s:%v" (include "mirror.scheme" .) $host $e.port }}
{{- else if eq $e.type "LoadBalancer" }}
{{- fail "agent.enabled with endpoint.type: LoadBalancer needs endpoint.url: the URL by which nodes reach the load balancer" }}
{{- else if not $e.clusterIP }}
{{- fail "agent.enabled with endpoint.type: ClusterIP needs endpoint.clusterIP, a fixed address, or endpoint.url: nodes can't resolve names of Services" }}
{{- else }}
{{- printf "%s://%s:%v" (include "mirror.scheme" .) (ternary (printf "[%s]" $e.clusterIP) $e.clusterIP (contains ":" $e.clusterIP)) $e.port }}
{{- end }}
{{- end }}

{{/* What does not fit together. */}}
{{- define "mirror.check" -}}
{{- if and (eq .Values.endpoint.type "HostPort") (eq .Values.kind "StatefulSet") }}
{{- fail "endpoint.type: HostPort needs kind: DaemonSet: with a StatefulSet most nodes have no mirror of their own; use NodePort" }}
{{- end }}
{{- if and .Values.endpoint.hostNetwork (not .Values.admin.tokenSecret) }}
{{- fail "endpoint.hostNetwork needs admin.tokenSecret: every program of the node can connect to the admin listener" }}
{{- end }}
{{- if and .Values.endpoint.hostNetwork (ne .Values.endpoint.type "HostPort") }}
{{- fail "endpoint.hostNetwork needs endpoint.type: HostPort" }}
{{- end }}
{{- if and (eq .Values.kind "None") (not .Values.agent.enabled) }}
{{- fail "kind: None needs agent.enabled: there is nothing else to install" }}
{{- end }}
{{- if and .Values.agent.noFallback .Values.agent.default }}
{{- fail "agent.noFallback with agent.default leaves no way to the mirror's own image: name agent.registries instead" }}
{{- end }}
{{- end }}

{{/* The URL by which pods reach the mirror. */}}
{{- define "mirror.inside" -}}
{{- $scheme := include "mirror.scheme" . }}
{{- if and (eq $scheme "https") .Values.endpoint.url }}
{{- .Values.endpoint.url }}
{{- else }}
{{- printf "%s://%s.%s.svc:%v" $scheme (include "mirror.fullname" .) .Release.Namespace .Values.endpoint.port }}
{{- end }}
{{- end }}
