// Wattlet's rules, alerts and dashboards as a mixin: what deploy/prometheus and deploy/grafana have, and nothing else.
local rules = std.parseYaml(importstr '../prometheus/wattlet.rules.yaml');
local groups(field) = [g for g in rules.groups if std.objectHas(g.rules[0], field)];

{
  prometheusRules+:: { groups+: groups('record') },
  prometheusAlerts+:: { groups+: groups('alert') },

  // Import each: a jsonnet import takes no computed name.
  grafanaDashboards+:: {
    'wattlet-cluster.json': import '../grafana/wattlet-cluster.json',
    'wattlet-earlier-system.json': import '../grafana/wattlet-earlier-system.json',
    'wattlet-functions.json': import '../grafana/wattlet-functions.json',
    'wattlet-meters.json': import '../grafana/wattlet-meters.json',
    'wattlet-node.json': import '../grafana/wattlet-node.json',
  },
}
