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

{{/* Labels. The argument is a list: the root, the component, and further labels, which win over commonLabels. */}}
{{- define "mirror.selector" -}}
{{- $root := index . 0 }}
{{- dict
    "app.kubernetes.io/name" (include "mirror.name" $root)
    "app.kubernetes.io/instance" $root.Release.Name
    "app.kubernetes.io/component" (index . 1) | toYaml }}
{{- end }}

{{- define "mirror.labels" -}}
{{- $root := index . 0 }}
{{- $labels := include "mirror.podLabels" . | fromYaml }}
{{- merge $labels (dict
    "app.kubernetes.io/version" $root.Chart.AppVersion
    "app.kubernetes.io/part-of" "mirror"
    "app.kubernetes.io/managed-by" $root.Release.Service
    "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")) | toYaml }}
{{- end }}

{{/* Labels of pods: without versions, so that a new chart alone is not a rollout. */}}
{{- define "mirror.podLabels" -}}
{{- $more := dict }}
{{- if gt (len .) 2 }}
{{- $more = index . 2 | default dict }}
{{- end }}
{{- merge (include "mirror.selector" . | fromYaml) $more ((index . 0).Values.commonLabels | default dict) | toYaml }}
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
  - name: {{ . | toYaml }}
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

{{/* A share of a quantity, in MiB: quantity, tenths. Empty where there is none. */}}
{{- define "mirror.share" -}}
{{- $quantity := toString (index . 0) }}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?([eE][+]?[0-9]+|k|M|G|T|Ki|Mi|Gi|Ti)?$" $quantity }}
{{- $unit := dict "" 0.00000095367431640625 "k" 0.00095367431640625 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625
    "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 }}
{{- $mi := mulf (regexFind "^[0-9.]+([eE][+]?[0-9]+)?" $quantity | float64) (get $unit (regexFind "[kMGT]?i?$|Ki$" $quantity)) }}
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
{{- include "mirror.checkFolders" . }}
{{- include "mirror.checkURL" . }}
{{- include "mirror.checkPlaces" . }}
{{- range $at, $path := pick .Values.agent "ca" "clientCert" "clientKey" }}
{{- if and $path (not (hasPrefix (printf "%s/" $.Values.agent.certsDir) $path)) }}
{{- fail (printf "agent.%s: %s is not in agent.certsDir, the one folder of the node that the agent sees: copy it to %s/%s, and name that" $at $path $.Values.agent.certsDir (base $path)) }}
{{- end }}
{{- end }}
{{- if ne (empty .Values.agent.clientCert) (empty .Values.agent.clientKey) }}
{{- fail "agent.clientCert and agent.clientKey belong together: set both, or neither" }}
{{- end }}
{{- range $at, $list := dict "extraEnv" .Values.extraEnv "agent.extraEnv" .Values.agent.extraEnv }}
{{- range $list }}
{{- if has .name (list "MIRROR_CONFIG" "MIRROR_LISTEN" "MIRROR_METRICS_LISTEN" "MIRROR_ADMIN_LISTEN" "MIRROR_ADMIN_TOKENFILE" "MIRROR_CACHE_DIR" "MIRROR_CACHE_SIZE" "MIRROR_DRAIN" "NODE_NAME" "HOST_IP") }}
{{- fail (printf "%s has %s, which the chart sets: remove it, and set the value of the chart for it" $at .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- $m := .Values.metrics }}
{{- range $at, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "agent.podLabels" .Values.agent.podLabels
    "metrics.serviceMonitor.labels" $m.serviceMonitor.labels "metrics.podMonitor.labels" $m.podMonitor.labels
    "metrics.prometheusRule.labels" $m.prometheusRule.labels "metrics.dashboard.labels" $m.dashboard.labels }}
{{- range $key, $_ := $labels }}
{{- if has $key $own }}
{{- fail (printf "%s has %s, which the chart sets: remove it, or set nameOverride or fullnameOverride for another name" $at $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey .Values.agent.podAnnotations "mirror/registries" }}
{{- fail "agent.podAnnotations has mirror/registries, which the chart sets: remove it" }}
{{- end }}
{{- end }}

{{/* Folders of the nodes: none of the system's, of which one becomes the mirror's, and root writes to the other. */}}
{{- define "mirror.checkFolders" -}}
{{- $dots := "/\\.{1,2}(/|$)" }}
{{- $system := "^/(bin|boot|dev|etc|lib|lib32|lib64|proc|root|run|sbin|sys|usr)(/|$)|^/(home|media|mnt|opt|srv|tmp|var)$|^/var/(cache|lib|lock|log|mail|opt|run|spool|tmp)$|^/var/run/|^/var/lib/(cni|containerd|containers|docker|dpkg|etcd|kubelet|rancher|rpm|systemd)(/|$)" }}
{{- if regexMatch (printf "%s|%s" $dots $system) .Values.cache.hostPath }}
{{- fail (printf "cache.hostPath: %s is a folder of the system, or has .. in it: name one for the cache alone, as /var/lib/mirror" .Values.cache.hostPath) }}
{{- end }}
{{- $system = "^/(bin|boot|dev|lib|lib32|lib64|proc|root|sbin|sys)/|^/(etc|run|usr|var)/[^/]+$|^/usr/(bin|lib|lib32|lib64|libexec|sbin|share)/|^/var/(lib|run)/[^/]+$" }}
{{- if regexMatch (printf "%s|%s" $dots $system) .Values.agent.certsDir }}
{{- fail (printf "agent.certsDir: %s is a folder of the system, or has .. in it: name that of registries, which config_path of containerd names, as /etc/containerd/certs.d" .Values.agent.certsDir) }}
{{- end }}
{{- range $at, $path := pick .Values.agent "ca" "clientCert" "clientKey" }}
{{- if regexMatch $dots $path }}
{{- fail (printf "agent.%s: %s has .. in it: write the path without" $at $path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether endpoint.url can be the mirror's. */}}
{{- define "mirror.checkURL" -}}
{{- with .Values.endpoint.url }}
{{- $plain := hasPrefix "http://" . }}
{{- $host := regexReplaceAll "^https?://|:[0-9]+$" . "" | lower | trimSuffix "." }}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "80" "443" $plain) }}
{{- if regexMatch "\\.svc(\\.cluster\\.local)?$|\\.cluster\\.local$" $host }}
{{- fail (printf "endpoint.url: nodes can't resolve %s, a name of the cluster's DNS: set an address, or leave endpoint.url empty with type: NodePort" $host) }}
{{- end }}
{{- if and (ne $.Values.kind "None") $plain (eq (include "mirror.scheme" $) "https") }}
{{- fail "endpoint.url begins with http://, and config has tls: write https://" }}
{{- end }}
{{- if and (eq $.Values.endpoint.type "LoadBalancer") (ne $.Values.kind "None") (ne $port (toString $.Values.endpoint.port)) }}
{{- fail (printf "endpoint.url has the port %s, and the load balancer has endpoint.port: %v; set endpoint.port=%s, or write the port into endpoint.url" $port $.Values.endpoint.port $port) }}
{{- end }}
{{- end }}
{{- end }}

{{/* With HostPort an agent without a mirror on its node would count as a node that the mirror does not answer. */}}
{{- define "mirror.checkPlaces" -}}
{{- if and (eq .Values.endpoint.type "HostPort") (ne .Values.kind "None") .Values.agent.enabled }}
{{- range $at, $pair := dict
    "nodeSelector" (list .Values.nodeSelector .Values.agent.nodeSelector)
    "tolerations" (list (include "mirror.tolerations" . | fromYamlArray) (.Values.agent.tolerations | default list))
    "affinity.nodeAffinity" (list .Values.affinity.nodeAffinity .Values.agent.affinity.nodeAffinity) }}
{{- if ne (index $pair 0 | toJson) (index $pair 1 | toJson) }}
{{- fail (printf "endpoint.type: HostPort needs a mirror on each node that has the agent: set agent.%s to the same as %s" $at $at) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Tolerations of the mirror's pods, as a list. */}}
{{- define "mirror.tolerations" -}}
{{- $list := .Values.tolerations | default list }}
{{- if and (not $list) (eq .Values.endpoint.type "HostPort") .Values.agent.enabled }}
{{- $list = .Values.agent.tolerations | default list }}
{{- end }}
{{- toYaml $list }}
{{- end }}

{{/* Whether a list of variables has a name: list, name. Empty: it has not. */}}
{{- define "mirror.hasEnv" -}}
{{- $name := index . 1 }}
{{- range index . 0 }}
{{- if eq .name $name }}yes{{ end }}
{{- end }}
{{- end }}

{{/* The Secret of secrets that config's certificate is in; empty: it is in none, or there is no certificate. */}}
{{- define "mirror.tlsSecret" -}}
{{- $tls := (include "mirror.config" . | fromYaml).tls | default dict }}
{{- range .Values.secrets }}
{{- if hasPrefix (printf "/etc/mirror/secrets/%s/" .) ($tls.cert | default "") }}{{ . }}{{ end }}
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
