// Adds Wattlet to kube-prometheus; README.md has a whole example. Parameters are those of wattlet.libsonnet, in values.wattlet.
local mixin = import 'mixin.libsonnet';
local wattlet = import 'wattlet.libsonnet';

{
  values+:: {
    wattlet+: { monitoringNamespace: $.values.common.namespace },
    // Gives Prometheus the right to find pods there.
    prometheus+: { namespaces+: [$.values.wattlet.namespace] },
    grafana+: { dashboards+: mixin.grafanaDashboards },
  },
  wattlet: wattlet($.values.wattlet),
}
