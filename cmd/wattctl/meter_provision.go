package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

type provisionCmd struct {
	Name        string `arg:"" help:"The meter's name, as bench-1."`
	Host        string `default:"METER" help:"The meter's address, for the snippets."`
	Dir         string `default:"." type:"path" help:"Where the key file goes."`
	PSKIdentity string `name:"psk-identity" default:"wattlet" help:"Identity of the key."`
}

// word is what file names, YAML, shells and a meter's console take as it is.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Run makes a key, writes it to NAME.psk, readable by its owner alone, and prints what goes where. It never overwrites one.
func (c provisionCmd) Run(a *app) error {
	const form = "use letters, digits, dot, dash and underscore, at most 63, a letter or digit first"
	switch {
	case !word.MatchString(c.Name):
		return usagef("meter name %q: %s", c.Name, form)
	case !word.MatchString(c.PSKIdentity):
		return usagef("--psk-identity %q: %s", c.PSKIdentity, form)
	}
	if ip, err := netip.ParseAddr(c.Host); err == nil && ip.Is6() {
		c.Host = "[" + c.Host + "]"
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	url := "coaps://" + c.Host
	if err := checkEndpoint(url, key); err != nil {
		return usagef("--host: %w", err)
	}
	path := filepath.Join(c.Dir, c.Name+".psk")
	if err := writeKey(path, key); errors.Is(err, os.ErrExist) {
		return usagef("%s is there already; a new key would lock out the agents that have the old one; remove the file to make one", path)
	} else if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, `Key written to %[1]s. Anyone who has it can read the meter.

On the meter, at its serial console:

  psk set %[3]s %[4]s

On each agent's host, the file as /etc/wattlet/psk/%[5]s (mode 0600), and in the cluster's file:

  meters:
    %[7]s: {url: "%[6]s", psk_identity: %[8]s, psk_file: /etc/wattlet/psk/%[5]s}
  nodes:
    NODE: {meter: %[7]s, channel: 1}

In Kubernetes:

  kubectl -n wattlet create secret generic wattlet-psk --from-file=%[5]s=%[2]s

To look at it:

  wattctl meter read %[9]s --psk-identity=%[3]s --psk-file=%[2]s
  coap-client-openssl -m get -A 50 -u %[3]s -k "$(cat %[2]s)" %[10]s
`, path, shellWord(path), c.PSKIdentity, key, c.Name, url, yamlWord(c.Name), yamlWord(c.PSKIdentity),
		shellWord(url), shellWord(url+"/power"))
	return err
}

// writeKey makes a key file, which must not be there.
func writeKey(path string, key []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n", key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// shellWord is s as a shell takes it for one word.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:,@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// yamlWord is s as YAML takes it for a string: null, yes and 123 are not.
func yamlWord(s string) string {
	b, _ := yaml.Marshal(s) // every string has a form
	return strings.TrimSpace(string(b))
}
