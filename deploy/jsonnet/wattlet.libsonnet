// Wattlet as objects of Kubernetes: a function of its parameters. A test holds what it makes against the Helm chart, which can do more
// (hub, simulated meter, other ways to learn names, network policies).
local mixin = import 'mixin.libsonnet';

local defaults = {
  namespace: error 'say in which namespace the agents run: namespace',
  // The cluster file of docs/agent.md. psk_file is not written: keys are in the Secret, named as the meters.
  meters: {},
  nodes: error 'say what measures which node: nodes',
  functions: [],
  keysSecret: 'wattlet-keys',
  name: 'wattlet',
  version: '0.1.0',
  image: 'ghcr.io/wattlet/wattlet:' + self.version,
  commonLabels: {},
  stateDirectory: '/var/lib/wattlet',
  user: 65532,
  watchdogPort: 8081,
  // URLs of the metrics of OpenFaaS's gateway, for functions without a watchdog; see docs/openfaas.md.
  gatewayUrls: [],
  interval: '15s',
  tolerations: [{ operator: 'Exists' }],
  resources: { requests: { cpu: '10m', memory: '24Mi' }, limits: { memory: '64Mi' } },
  // Of monitor and rules, for a Prometheus that selects by them.
  monitoringLabels: {},
  monitoringNamespace: self.namespace,
};

function(params) {
  local c = defaults + params,
  local nodes = c.nodes,
  local selector = {
    'app.kubernetes.io/name': 'wattlet',
    'app.kubernetes.io/instance': c.name,
    'app.kubernetes.io/component': 'agent',
  },
  local labels = selector {
    'app.kubernetes.io/part-of': 'wattlet',
    'app.kubernetes.io/version': c.version,
  } + c.commonLabels,
  local metadata = { name: c.name, namespace: c.namespace, labels: labels },
  local monitoring = metadata { namespace: c.monitoringNamespace, labels+: c.monitoringLabels },
  local role = c.namespace + '-' + c.name,

  local meters = {
    [name]: c.meters[name] + (
      if std.startsWith(c.meters[name].url, 'coaps:')
      then { psk_file: 'psk/' + name, psk_identity: std.get(c.meters[name], 'psk_identity', 'wattlet') }
      else {}
    )
    for name in std.objectFields(c.meters)
  },
  local keyed = [name for name in std.objectFields(meters) if std.objectHas(meters[name], 'psk_file')],
  local sysfs = [name for name in std.objectFields(nodes) if std.objectHas(nodes[name], 'sysfs')] != [],
  local agentNodes = std.set([std.get(nodes[name], 'agent', name) for name in std.objectFields(nodes)]),
  // JSON is YAML.
  local clusterFile = std.manifestJsonEx(
    { meters: meters, nodes: nodes } + (if c.functions == [] then {} else { functions: c.functions }), '  '
  ),
  local state = { name: 'state', mountPath: '/var/lib/wattlet' },
  local unprivileged = { allowPrivilegeEscalation: false, privileged: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },

  serviceAccount: { apiVersion: 'v1', kind: 'ServiceAccount', metadata: metadata, automountServiceAccountToken: false },

  clusterRole: {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: role, labels: labels },
    rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['watch'] }],
  },

  clusterRoleBinding: {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: role, labels: labels },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'ServiceAccount', name: c.name, namespace: c.namespace }],
  },

  config: { apiVersion: 'v1', kind: 'ConfigMap', metadata: metadata, data: { 'wattlet.yaml': clusterFile } },

  daemonSet: {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: metadata,
    spec: {
      selector: { matchLabels: selector },
      updateStrategy: { rollingUpdate: { maxUnavailable: 1 } },
      template: {
        metadata: {
          labels: labels,
          annotations: {
            'kubectl.kubernetes.io/default-container': 'wattlet',
            // Agents read it when they start: a change makes new pods.
            'checksum/cluster': std.md5(clusterFile),
          },
        },
        spec: {
          serviceAccountName: c.name,
          automountServiceAccountToken: true,
          enableServiceLinks: false,
          affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [
            { matchFields: [{ key: 'metadata.name', operator: 'In', values: [node] }] }
            for node in agentNodes
          ] } } },
          tolerations: c.tolerations,
          terminationGracePeriodSeconds: 15,
          securityContext: {
            runAsUser: c.user,
            runAsGroup: c.user,
            runAsNonRoot: c.user != 0,
            fsGroup: c.user,
            seccompProfile: { type: 'RuntimeDefault' },
          },
          [if c.user != 0 then 'initContainers']: [{
            name: 'state',
            image: c.image,
            imagePullPolicy: 'IfNotPresent',
            args: ['--state.directory=/var/lib/wattlet', '--state.prepare=%d:%d' % [c.user, c.user]],
            resources: c.resources,
            securityContext: unprivileged { runAsUser: 0, runAsGroup: 0, runAsNonRoot: false, capabilities+: { add: ['CHOWN'] } },
            volumeMounts: [state],
          }],
          containers: [{
            name: 'wattlet',
            image: c.image,
            imagePullPolicy: 'IfNotPresent',
            args: [
              '--config.file=/etc/wattlet/wattlet.yaml',
              '--web.listen-address=:9780',
              '--state.directory=/var/lib/wattlet',
            ] + (if sysfs then ['--path.sys=/host/sys'] else []) + [
              '--path.cgroup=/host/sys/fs/cgroup',
              '--tick=1s',
              '--log.level=info',
              '--kube=watch',
              '--kube.watchdog-port=%d' % c.watchdogPort,
            ] + ['--gateway.url=' + url for url in c.gatewayUrls],
            env: [
              { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
              { name: 'POD_UID', valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } },
            ],
            ports: [{ name: 'metrics', containerPort: 9780, protocol: 'TCP' }],
            livenessProbe: { httpGet: { path: '/healthz', port: 'metrics' }, periodSeconds: 15, timeoutSeconds: 5 },
            readinessProbe: { httpGet: { path: '/readyz', port: 'metrics' }, periodSeconds: 5, timeoutSeconds: 5 },
            resources: c.resources,
            securityContext: unprivileged,
            volumeMounts: [
              { name: 'config', mountPath: '/etc/wattlet', readOnly: true },
              state,
              {
                name: if sysfs then 'sys' else 'cgroup',
                mountPath: if sysfs then '/host/sys' else '/host/sys/fs/cgroup',
                readOnly: true,
                recursiveReadOnly: 'IfPossible',
              },
            ],
          }],
          volumes: [
            { name: 'config', projected: {
              defaultMode: std.parseOctal('0440'),
              sources: [{ configMap: { name: c.name } }] + (
                if keyed == [] then [] else [{ secret: { name: c.keysSecret, items: [{ key: k, path: 'psk/' + k } for k in keyed] } }]
              ),
            } },
            { name: 'state', hostPath: { path: c.stateDirectory, type: 'DirectoryOrCreate' } },
            if sysfs
            then { name: 'sys', hostPath: { path: '/sys', type: 'Directory' } }
            else { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } },
          ],
        },
      },
    },
  },

  podMonitor: {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PodMonitor',
    metadata: monitoring,
    spec: {
      namespaceSelector: { matchNames: [c.namespace] },
      selector: { matchLabels: selector },
      podMetricsEndpoints: [{
        port: 'metrics',
        path: '/metrics',
        interval: c.interval,
        // Series name node, namespace and function themselves. A pod's name would make a new series with each pod, and the agent's
        // own namespace would stand where a workload has none.
        honorLabels: true,
        relabelings: [
          { action: 'replace', sourceLabels: ['__meta_kubernetes_pod_node_name'], targetLabel: 'instance' },
          { action: 'replace', targetLabel: 'job', replacement: 'wattlet' },
          { action: 'labeldrop', regex: 'namespace|pod|container|endpoint|service' },
        ],
      }],
    },
  },

  prometheusRule: {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: monitoring,
    spec: { groups: mixin.prometheusRules.groups + mixin.prometheusAlerts.groups },
  },
}
