package metersim_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/wattlet/wattlet/internal/metersim"
)

// The clients that people have at hand speak to the meter. They end with 0 whatever happens, so their output is what counts.
func TestLibcoapClients(t *testing.T) {
	for _, name := range []string{"coap-client-openssl", "coap-client-gnutls"} {
		t.Run(name, func(t *testing.T) {
			client, err := exec.LookPath(name)
			if err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatalf("%s is missing: install the Debian package libcoap3-bin", name)
				}
				t.Skipf("%s is missing: install the Debian package libcoap3-bin", name)
			}
			const secret = "secret of the bench"
			sim := run(t, metersim.Options{PSK: metersim.OneKey(identity, []byte(secret))})
			ask := func(args ...string) string {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				out, err := exec.CommandContext(ctx, client, append([]string{"-m", "get"}, args...)...).Output()
				if err != nil {
					t.Fatalf("%v: %v", args, err)
				}
				return string(out)
			}
			type report struct {
				BootID   uint32 `json:"boot_id"`
				Seq      uint32 `json:"seq"`
				Channels []struct {
					EnergyUJ int64 `json:"energy_uj"`
				} `json:"channels"`
			}
			var r report
			out := ask("-A", "50", "-u", identity, "-k", secret, sim.URL()+"/power")
			if err := json.Unmarshal([]byte(out), &r); err != nil || r.BootID != sim.BootID() || r.Channels[0].EnergyUJ <= 0 {
				t.Errorf("/power: %q, %v", out, err)
			}
			if out := ask("-u", identity, "-k", secret, sim.URL()+"/.well-known/core"); !strings.Contains(out, "</power>;") {
				t.Errorf("/.well-known/core: %q", out)
			}
			if out := ask("-A", "50", "-u", identity, "-k", secret, sim.URL()+"/meter"); !json.Valid([]byte(out)) {
				t.Errorf("/meter: %q", out)
			}

			// Observed for a second, JSON after JSON.
			dec := json.NewDecoder(strings.NewReader(ask("-s", "1", "-A", "50", "-u", identity, "-k", secret, sim.URL()+"/power")))
			var n int
			for before := uint32(0); dec.More(); n++ {
				var r report
				if err := dec.Decode(&r); err != nil || r.Seq < before {
					t.Fatalf("notification %d after %d: %+v, %v", n, before, r, err)
				}
				before = r.Seq
			}
			if n < 6 {
				t.Errorf("%d notifications in a second, want about 10", n)
			}
			eventually(t, "the observer has left", func() bool { return sim.Observers() == 0 })

			// What it prints then is about itself.
			if out := ask("-B", "2", "-A", "50", "-u", identity, "-k", "wrong", sim.URL()+"/power"); strings.Contains(out, "boot_id") {
				t.Errorf("with a wrong key: %q", out)
			}
		})
	}
}
