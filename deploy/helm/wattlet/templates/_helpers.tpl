{{- define "wattlet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name, once: release wattlet of chart wattlet is wattlet. */ -}}
{{- define "wattlet.fullname" -}}
{{- $name := include "wattlet.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Arguments: the root, a component. */ -}}
{{- define "wattlet.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "wattlet.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "wattlet.labels" -}}
{{- $root := index . 0 -}}
{{ include "wattlet.selector" . }}
app.kubernetes.io/part-of: wattlet
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Arguments: the root, an image. */ -}}
{{- define "wattlet.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "wattlet.serviceAccount" -}}
{{- default (ternary (include "wattlet.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "wattlet.keysSecret" -}}
{{- default (printf "%s-keys" (include "wattlet.fullname" .)) .Values.keys.existingSecret -}}
{{- end -}}

{{- define "wattlet.monitoringNamespace" -}}
{{- default .Release.Namespace .Values.monitoring.namespace -}}
{{- end -}}

{{- /* Everything runs without any privilege; only the user differs. */ -}}
{{- define "wattlet.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The user of the agent: a socket of the container runtime is root's. */ -}}
{{- define "wattlet.agentUser" -}}
{{- if eq .Values.kube.mode "cri" }}0{{ else }}{{ int .Values.agent.runAsUser }}{{ end -}}
{{- end -}}

{{- define "wattlet.usesToken" -}}
{{- if has .Values.kube.mode (list "watch" "kubelet") }}true{{ end -}}
{{- end -}}

{{- /* Nothing but the simulated meter: agents on all nodes, without a cluster file of nodes. */ -}}
{{- define "wattlet.allSimulated" -}}
{{- if and .Values.simulator.enabled (not .Values.cluster.nodes) }}true{{ end -}}
{{- end -}}

{{- /* The meters of the cluster file with what the chart knows: where keys are, and the simulated one. */ -}}
{{- define "wattlet.meters" -}}
{{- $meters := dict -}}
{{- range $name, $meter := .Values.cluster.meters -}}
{{- $m := deepCopy $meter -}}
{{- if hasPrefix "coaps:" $meter.url -}}
{{- $_ := set $m "psk_file" (printf "psk/%s" $name) -}}
{{- $_ := set $m "psk_identity" (default "wattlet" $meter.psk_identity) -}}
{{- end -}}
{{- $_ := set $meters $name $m -}}
{{- end -}}
{{- if .Values.simulator.enabled -}}
{{- $name := .Values.simulator.name -}}
{{- if hasKey $meters $name -}}
{{- fail (printf "cluster.meters.%s: the simulated meter has that name; choose another simulator.name" $name) -}}
{{- end -}}
{{- $url := printf "coaps://%s-simulator.%s.svc:5684" (include "wattlet.fullname" .) .Release.Namespace -}}
{{- $_ := set $meters $name (dict "url" $url "psk_identity" "wattlet" "psk_file" (printf "psk/%s" $name)) -}}
{{- end -}}
{{- toYaml $meters -}}
{{- end -}}

{{- /* Names of the meters that have a key, as a list in YAML. */ -}}
{{- define "wattlet.keyed" -}}
{{- $names := list -}}
{{- range $name, $meter := include "wattlet.meters" . | fromYaml -}}
{{- if $meter.psk_file -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{- define "wattlet.clusterFile" -}}
{{- $meters := include "wattlet.meters" . | fromYaml -}}
{{- $nodes := deepCopy .Values.cluster.nodes -}}
{{- range $name, $node := $nodes -}}
{{- if hasKey $node "channel" -}}{{- $_ := set $node "channel" (int $node.channel) -}}{{- end -}}
{{- end -}}
{{- $file := dict "meters" $meters "nodes" $nodes -}}
{{- with .Values.cluster.functions -}}{{- $_ := set $file "functions" . -}}{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{- /* Nodes that agents run on, as a list in YAML. */ -}}
{{- define "wattlet.agentNodes" -}}
{{- $names := list -}}
{{- range $name, $node := .Values.cluster.nodes -}}
{{- $names = append $names (default $name $node.agent) -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{- define "wattlet.usesSysfs" -}}
{{- range $name, $node := .Values.cluster.nodes -}}
{{- if $node.sysfs }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- /* What no schema can say. */ -}}
{{- define "wattlet.check" -}}
{{- $v := .Values -}}
{{- if not (or $v.cluster.nodes $v.simulator.enabled) -}}
{{- fail "nothing says what measures your nodes: set cluster.meters and cluster.nodes, or simulator.enabled=true to try without hardware; see docs/kubernetes.md" -}}
{{- end -}}
{{- if and $v.monitoring.podMonitor $v.monitoring.serviceMonitor -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor: with both, all would be scraped twice; choose one" -}}
{{- end -}}
{{- $meters := include "wattlet.meters" . | fromYaml -}}
{{- range $name, $node := $v.cluster.nodes -}}
{{- if and (hasKey $node "meter") (hasKey $node "sysfs") -}}
{{- fail (printf "cluster.nodes.%s: give either meter and channel, or sysfs" $name) -}}
{{- end -}}
{{- if not (or $node.meter $node.sysfs) -}}
{{- fail (printf "cluster.nodes.%s: nothing measures it; give meter and channel, or sysfs" $name) -}}
{{- end -}}
{{- if and $node.meter (not $node.channel) -}}
{{- fail (printf "cluster.nodes.%s: say which channel of meter %s the node is wired to" $name $node.meter) -}}
{{- end -}}
{{- if and $node.meter (not (hasKey $meters $node.meter)) -}}
{{- fail (printf "cluster.nodes.%s: no meter %s in cluster.meters" $name $node.meter) -}}
{{- end -}}
{{- end -}}
{{- if not $v.keys.existingSecret -}}
{{- range include "wattlet.keyed" . | fromYamlArray -}}
{{- if not (or (hasKey $v.keys.values .) (and $v.simulator.enabled (eq . $v.simulator.name))) -}}
{{- fail (printf "no key for meter %s: --set-file keys.values.%s=FILE with what wattctl meter provision made, or keys.existingSecret" . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
