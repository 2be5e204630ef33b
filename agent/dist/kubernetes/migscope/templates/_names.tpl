{{- /* SPDX-License-Identifier: Apache-2.0 OR MIT */ -}}
{{- define "migscope.name" -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}-migscope
{{- end }}

{{- define "migscope.selector" -}}
app.kubernetes.io/name: migscope
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "migscope.labels" -}}
{{ include "migscope.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What a ServiceMonitor's endpoint and a PodMonitor's have in common. `instance` is the node: a pod's name lives shorter. */}}
{{- define "migscope.endpoint" -}}
port: metrics
scheme: {{ .Values.web.scheme }}
interval: {{ .Values.monitor.interval }}
scrapeTimeout: {{ .Values.monitor.scrapeTimeout }}
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: instance
{{- with .Values.monitor.endpoint }}
{{ toYaml . }}
{{- end }}
{{- end }}
