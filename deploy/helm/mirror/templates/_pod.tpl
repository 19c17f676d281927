{{/* The pod of the mirror, for both kinds. */}}
{{- define "mirror.pod" -}}
{{- $volume := include "mirror.volume" . }}
{{- $scheme := include "mirror.scheme" . | upper -}}
metadata:
  labels:
    {{- include "mirror.podLabels" (list . "mirror" .Values.podLabels) | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "mirror.serviceAccount" . | toYaml }}
  automountServiceAccountToken: {{ not (empty (include "mirror.usesAPI" .)) }}
  enableServiceLinks: false
  {{- with include "mirror.pullSecrets" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | toYaml }}
  {{- end }}
  {{- if .Values.endpoint.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  # Longer than preStop and drain together: running pulls end before the kubelet kills the process.
  terminationGracePeriodSeconds: {{ add .Values.preStopSeconds .Values.drainSeconds 15 }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if eq $volume "hostPath" }}
  initContainers:
    # The kubelet makes the folder root's. It is given to the mirror's user; nothing below it is touched.
    - name: folder
      image: {{ include "mirror.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [cache, prepare, --dir=/var/lib/mirror, --owner=65532]
      securityContext:
        runAsNonRoot: false
        runAsUser: 0
        runAsGroup: 0
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          add: [CHOWN]
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: cache
          mountPath: /var/lib/mirror
  {{- end }}
  containers:
    - name: mirror
      image: {{ include "mirror.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        # These win over the file, and kubectl exec has them too.
        - name: MIRROR_CONFIG
          value: /etc/mirror/config/config.yaml
        - name: MIRROR_LISTEN
          value: {{ printf ":%v" (ternary .Values.endpoint.port 5000 .Values.endpoint.hostNetwork) | quote }}
        - name: MIRROR_METRICS_LISTEN
          value: {{ printf ":%v" .Values.metrics.port | quote }}
        - name: MIRROR_ADMIN_LISTEN
          value: {{ printf "%s:%v" (ternary "" "127.0.0.1" (not (empty .Values.admin.tokenSecret))) .Values.admin.port | quote }}
        {{- with .Values.admin.tokenSecret }}
        - name: MIRROR_ADMIN_TOKENFILE
          value: {{ printf "/etc/mirror/admin/%s" $.Values.admin.tokenKey | quote }}
        {{- end }}
        - name: MIRROR_CACHE_DIR
          value: /var/lib/mirror
        - name: MIRROR_CACHE_SIZE
          value: {{ include "mirror.share" (list .Values.cache.size 8) }}
        - name: MIRROR_DRAIN
          value: {{ printf "%vs" .Values.drainSeconds }}
        {{- if not (include "mirror.hasEnv" (list .Values.extraEnv "GOMEMLIMIT")) }}
        {{- with include "mirror.share" (list (dig "limits" "memory" "" .Values.resources) 9) }}
        - name: GOMEMLIMIT
          value: {{ . }}
        {{- end }}
        {{- end }}
        {{- if not (include "mirror.hasEnv" (list .Values.extraEnv "POD_NAME")) }}
        # By its pod the mirror knows its replicas and its node, also where it has the node's name (kubernetes.coverage).
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: registry
          containerPort: {{ ternary .Values.endpoint.port 5000 .Values.endpoint.hostNetwork }}
          {{- if eq .Values.endpoint.type "HostPort" }}
          hostPort: {{ .Values.endpoint.port }}
          {{- end }}
        - name: metrics
          containerPort: {{ .Values.metrics.port }}
          {{- if .Values.endpoint.hostNetwork }}
          hostPort: {{ .Values.metrics.port }}
          {{- end }}
        {{- if .Values.admin.tokenSecret }}
        - name: admin
          containerPort: {{ .Values.admin.port }}
          {{- if .Values.endpoint.hostNetwork }}
          hostPort: {{ .Values.admin.port }}
          {{- end }}
        {{- end }}
      # A mirror waits up to a minute for its folder while another process uses it.
      startupProbe:
        httpGet: {path: /readyz, port: registry, scheme: {{ $scheme }}}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /readyz, port: registry, scheme: {{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 3
      # The listener of metrics has connections of its own: however many clients there are, they don't have the mirror killed.
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      lifecycle:
        preStop:
          # The mirror refuses new pulls once it is told to stop: before that, nodes are to know that it goes.
          sleep:
            seconds: {{ .Values.preStopSeconds }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - name: cache
          mountPath: /var/lib/mirror
        - name: config
          mountPath: /etc/mirror/config
          readOnly: true
        {{- if .Values.admin.tokenSecret }}
        - name: admin
          mountPath: /etc/mirror/admin
          readOnly: true
        {{- end }}
        {{- range $i, $name := .Values.secrets }}
        - name: secret-{{ $i }}
          mountPath: {{ printf "/etc/mirror/secrets/%s" $name | quote }}
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if eq $volume "hostPath" }}
    - name: cache
      hostPath:
        path: {{ .Values.cache.hostPath | quote }}
        type: DirectoryOrCreate
    {{- else if eq $volume "emptyDir" }}
    - name: cache
      emptyDir:
        sizeLimit: {{ .Values.cache.size }}
    {{- end }}
    # Whole folders: the kubelet replaces their content when the ConfigMap or the Secret changes.
    - name: config
      configMap:
        name: {{ printf "%s-config" (include "mirror.fullname" .) | toYaml }}
    {{- with .Values.admin.tokenSecret }}
    - name: admin
      secret:
        secretName: {{ . | toYaml }}
        defaultMode: 0440
    {{- end }}
    {{- range $i, $name := .Values.secrets }}
    - name: secret-{{ $i }}
      secret:
        secretName: {{ $name | toYaml }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "mirror.tolerations" . | fromYamlArray }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "StatefulSet" }}
  topologySpreadConstraints:
    {{- with .Values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - topologyKey: kubernetes.io/hostname
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "mirror.selector" (list . "mirror") | nindent 10 }}
    {{- end }}
  {{- end }}
{{- end }}
