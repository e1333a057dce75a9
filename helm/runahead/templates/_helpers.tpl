{{- define "runahead.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "runahead.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "runahead.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "runahead.labels" -}}
{{ include "runahead.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The ports, in one place. */}}
{{- define "runahead.port.http" -}}8000{{- end }}
{{- define "runahead.port.control" -}}7070{{- end }}
{{- define "runahead.port.data" -}}7071{{- end }}
{{- define "runahead.port.admin" -}}9100{{- end }}

{{/* The Secret with a role's certificate; nothing: the processes speak plain. */}}
{{- define "runahead.tlsSecret" -}}
{{- $secrets := .root.Values.tls.secrets }}
{{- $named := compact (list $secrets.coordinator $secrets.prefill $secrets.decode) }}
{{- if and $named (ne (len $named) 3) }}
{{- fail "tls.secrets needs all three: coordinator, prefill and decode" }}
{{- end }}
{{- get $secrets .role }}
{{- end }}

{{/* The command line of a role: what differs from pod to pod. All else is in the config file. "*" is every address of the
pod, IPv4 and IPv6, whatever the cluster has. */}}
{{- define "runahead.args" -}}
- {{ .role }}
- --config
- /etc/runahead/runahead.yaml
{{- with include "runahead.tlsSecret" . }}
- --tls-cert
- /etc/runahead-tls/tls.crt
- --tls-key
- /etc/runahead-tls/tls.key
- --tls-ca
- /etc/runahead-tls/ca.crt
- --insecure-http
{{- else }}
- --insecure-network
{{- end }}
- --admin
- "*:{{ include "runahead.port.admin" .root }}"
{{- if eq .role "coordinator" }}
- --listen
- "*:{{ include "runahead.port.control" .root }}"
- --http
- "*:{{ include "runahead.port.http" .root }}"
- --job-store
- /data/jobs.sqlite
{{- if .values.canarySeconds }}
- --ready-canary
- {{ .values.canarySeconds | quote }}
{{- end }}
{{- if .values.apiKeysSecret }}
- --api-keys
- /etc/runahead-keys/api-keys
{{- end }}
{{- else }}
- --coordinator
- {{ include "runahead.fullname" .root }}-control:{{ include "runahead.port.control" .root }}
- --data-listen
- "*:{{ include "runahead.port.data" .root }}"
- --advertise
- $(POD_IP)
- --name
- $(POD_NAME)
{{- if .root.Values.tls.authenticatePages }}
{{- if not (include "runahead.tlsSecret" .) }}
{{- fail "tls.authenticatePages needs tls.secrets: the keys travel within TLS" }}
{{- end }}
- --authenticate-pages
{{- end }}
{{- end }}
{{- end }}

{{- define "runahead.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Of a worker: RDMA pins the memory that its adapter reads, which needs a right that the restricted profile has not. */}}
{{- define "runahead.workerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL], add: [IPC_LOCK]}
{{- end }}

{{/* How K/V pages travel. Over what opens ports of its own, workers reach each other on every port. */}}
{{- define "runahead.transport" -}}
{{- if .Values.gpu.enabled }}{{ .Values.gpu.transport }}{{ else if .Values.rdma.enabled }}ucx{{ else }}tcp{{ end }}
{{- end }}

{{/* A role as one group of LeaderWorkerSet. Its pods need each other no more than those of a StatefulSet do, so one that ends
is started again alone. Arguments: root, role, values. */}}
{{- define "runahead.group" -}}
replicas: 1
leaderWorkerTemplate:
  size: {{ .values.workers | int64 }}
  restartPolicy: None
  workerTemplate: {{- include "runahead.pod" . | nindent 4 }}
{{- end }}

{{- define "runahead.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- with .Values.seccompProfile }}
seccompProfile: {type: Localhost, localhostProfile: {{ . | quote }}}
{{- else }}
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- end }}

{{/* Ends with a sentence where the cluster lacks an API. Arguments: root, api, value (that asks for it), of (what brings it). */}}
{{- define "runahead.needs" -}}
{{- if not (.root.Capabilities.APIVersions.Has .api) -}}
{{- fail (printf "%s needs the API %s, which this cluster does not have: install %s first, or leave the value out (helm template: --api-versions %s)" .value .api .of .api) -}}
{{- end -}}
{{- end }}

{{/* More workers at once where prompts wait; fewer one by one and late, for a new one has to load the model. */}}
{{- define "runahead.scaleBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownSeconds | int64 }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end }}

{{/* The resources of a role, with its GPU. Arguments: root, role, values. */}}
{{- define "runahead.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if and .root.Values.gpu.enabled (ne .role "coordinator") -}}
{{- if .root.Values.gpu.claimTemplate -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- else -}}
{{- $_ := set $resources.limits .root.Values.gpu.resource 1 -}}
{{- end -}}
{{- end -}}
{{- if and .root.Values.rdma.enabled (ne .role "coordinator") -}}
{{- $_ := set $resources.limits .root.Values.rdma.resource (int64 .root.Values.rdma.count) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{/* The model's files as sha256sum checks them. */}}
{{- define "runahead.sums" -}}
{{- range $file, $sum := .Values.model.sha256 }}{{ printf "%s  %s\n" $sum $file }}{{ end }}
{{- end }}

{{/* The pod of a role. Arguments: root, role, values (the role's own). */}}
{{- define "runahead.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "runahead.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    checksum/config: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
    {{- if and $root.Values.rdma.enabled (ne .role "coordinator") }}
    {{- with $root.Values.rdma.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
spec:
  serviceAccountName: {{ include "runahead.fullname" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds | int64 }}
  securityContext: {{- include "runahead.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $root.Values.gpu.enabled (ne .role "coordinator") }}
  {{- with $root.Values.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.gpu.claimTemplate }}
  resourceClaims:
    - {name: gpu, resourceClaimTemplateName: {{ . }}}
  {{- end }}
  {{- end }}
  {{- if and $root.Values.gang (ne .role "coordinator") }}
  schedulingGroup: {podGroupName: {{ include "runahead.fullname" $root }}-workers}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ $root.Values.topology.spreadOver }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "runahead.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .role }}
  {{- with $root.Values.topology.together }}
  affinity:
    podAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: {{ . }}
            labelSelector:
              matchLabels: {{- include "runahead.selector" $root | nindent 16 }}
  {{- end }}
  {{- if or (eq $root.Values.model.source "image") $root.Values.model.sha256 }}
  initContainers:
    {{- if eq $root.Values.model.source "image" }}
    - name: model
      image: {{ $root.Values.model.image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: ["cp", "-R", "/models/.", "/copy/"]
      securityContext: {{- include "runahead.containerSecurity" $root | nindent 8 }}
      resources:
        requests: {cpu: 100m, memory: 64Mi}
        limits: {memory: 256Mi}
      volumeMounts:
        - {name: model, mountPath: /copy}
    {{- end }}
    {{- if $root.Values.model.sha256 }}
    - name: checksum
      image: {{ include "runahead.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: ["bash", "-c", "cd /models && printf %s \"$SUMS\" | sha256sum --check --strict"]
      env:
        - {name: SUMS, value: {{ include "runahead.sums" $root | quote }}}
      securityContext: {{- include "runahead.containerSecurity" $root | nindent 8 }}
      resources:
        requests: {cpu: 100m, memory: 64Mi}
        limits: {memory: 256Mi}
      {{- if ne $root.Values.model.source "builtin" }}
      volumeMounts:
        - {name: model, mountPath: /models, readOnly: true}
      {{- end }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ include "runahead.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: ["runahead"]
      args: {{- include "runahead.args" . | nindent 8 }}
      env:
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: RUNAHEAD_MODEL_DIR, value: /models}
        - {name: RUNAHEAD_PACKED_CACHE, value: "off"}  # one worker a pod: nobody to share it with, and scratch is bounded
        - {name: RUNAHEAD_CACHE_DIR, value: /scratch}  # the root file system is read-only
        - {name: TMPDIR, value: /scratch}
        {{- if and $root.Values.rdma.enabled (ne .role "coordinator") }}
        {{- range $name, $value := $root.Values.rdma.env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
        {{- end }}
      ports:
        {{- if eq .role "coordinator" }}
        - {name: http, containerPort: {{ include "runahead.port.http" $root }}}
        - {name: control, containerPort: {{ include "runahead.port.control" $root }}}
        {{- else }}
        - {name: data, containerPort: {{ include "runahead.port.data" $root }}}
        {{- end }}
        - {name: admin, containerPort: {{ include "runahead.port.admin" $root }}}
      # On a listener of their own: no client of the API can take the probes' place, and scrapers need no key.
      # Start-up and liveness ask only whether the process itself turns: a dead peer must never restart a living pod. A busy
      # or throttled node stalls a process for seconds: that costs neither its life nor, for there is one coordinator and
      # nobody else to ask, its place behind the service.
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ div (add (int64 $root.Values.startupSeconds) 4) 5 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 4
      lifecycle:  # the endpoints forget this pod before it stops to accept
        preStop: {exec: {command: ["sleep", "5"]}}
      resources: {{- include "runahead.resources" . | nindent 8 }}
      {{- $pins := and $root.Values.rdma.enabled (ne .role "coordinator") }}
      securityContext: {{- include (ternary "runahead.workerSecurity" "runahead.containerSecurity" $pins) $root | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/runahead, readOnly: true}
        - {name: scratch, mountPath: /scratch}
        - {name: shm, mountPath: /dev/shm}
        {{- if ne $root.Values.model.source "builtin" }}
        - {name: model, mountPath: /models, readOnly: true}
        {{- end }}
        {{- if include "runahead.tlsSecret" . }}
        - {name: tls, mountPath: /etc/runahead-tls, readOnly: true}
        {{- end }}
        {{- if eq .role "coordinator" }}
        - {name: jobs, mountPath: /data}
        {{- if .values.apiKeysSecret }}
        - {name: api-keys, mountPath: /etc/runahead-keys, readOnly: true}
        {{- end }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "runahead.fullname" $root }}}
    - name: scratch
      emptyDir: {sizeLimit: {{ $root.Values.scratchSizeLimit }}}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $root.Values.shmSizeLimit }}}
    {{- if eq $root.Values.model.source "pvc" }}
    - name: model
      persistentVolumeClaim: {claimName: {{ $root.Values.model.claim }}, readOnly: true}
    {{- else if eq $root.Values.model.source "image" }}
    - name: model
      emptyDir: {sizeLimit: {{ $root.Values.model.sizeLimit }}}
    {{- else if eq $root.Values.model.source "hostPath" }}
    - name: model
      hostPath: {path: {{ $root.Values.model.hostPath }}, type: Directory}
    {{- end }}
    {{- with include "runahead.tlsSecret" . }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- if eq .role "coordinator" }}
    - name: jobs
      {{- if .values.jobsClaim }}
      persistentVolumeClaim: {claimName: {{ .values.jobsClaim }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $root.Values.scratchSizeLimit }}}
      {{- end }}
    {{- if .values.apiKeysSecret }}
    - name: api-keys
      secret:
        secretName: {{ .values.apiKeysSecret }}
        items: [{key: api-keys, path: api-keys}]
    {{- end }}
    {{- end }}
{{- end }}
