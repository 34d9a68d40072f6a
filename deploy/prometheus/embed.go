// Package prometheus has Wattlet's recording rules and alerts as bytes, so that a program can carry them. They are files for
// Prometheus first: prometheus.yaml shows how it loads them.
package prometheus

import _ "embed"

//go:embed wattlet.rules.yaml
var rules string

// RulesName is the name of the file with the rules.
const RulesName = "wattlet.rules.yaml"

// Rules returns the recording rules and alerts, as a file for Prometheus's rule_files.
func Rules() []byte { return []byte(rules) }
