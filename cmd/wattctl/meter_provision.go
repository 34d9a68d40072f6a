package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

type provisionCmd struct {
	Name        string `arg:"" help:"The meter's name, as bench-1."`
	Host        string `default:"METER" help:"The meter's address, for the snippets."`
	Dir         string `default:"." type:"path" help:"Where the key file goes."`
	PSKIdentity string `name:"psk-identity" default:"wattlet" help:"Identity of the key."`
}

var meterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Run makes a key, writes it to NAME.psk, readable by its owner alone, and prints what goes where. It never overwrites one.
func (c provisionCmd) Run(a *app) error {
	if !meterName.MatchString(c.Name) {
		return usagef("meter name %q: use letters, digits, dot, dash and underscore, at most 63", c.Name)
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, c.Name+".psk")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usagef("%s is there already; a new key would lock out the agents that have the old one; remove the file to make one", path)
	} else if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s\n", key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, `Key written to %[1]s. Anyone who has it can read the meter.

On the meter, at its serial console:

  psk set %[2]s %[3]s

On each agent's host, the file as /etc/wattlet/psk/%[4]s (mode 0600), and in the cluster's file:

  meters:
    %[4]s: {url: "coaps://%[5]s", psk_identity: %[2]s, psk_file: /etc/wattlet/psk/%[4]s}
  nodes:
    NODE: {meter: %[4]s, channel: 1}

In Kubernetes:

  kubectl -n wattlet create secret generic wattlet-psk --from-file=%[4]s=%[1]s

To look at it:

  wattctl meter read coaps://%[5]s --psk-identity=%[2]s --psk-file=%[1]s
  coap-client-openssl -m get -A 50 -u %[2]s -k "$(cat %[1]s)" coaps://%[5]s/power
`, path, c.PSKIdentity, key, c.Name, c.Host)
	return err
}
