package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestSimulateFaultsOfUsage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"--load=9=constant:5W", "--load 9=…: no channel 9; there are 1 to 6"},
		{"--load=0=constant:5W", "no channel 0"},
		{"--load=one=constant:5W", "no channel one"},
		{"--channels=2 --load=3=constant:5W", "no channel 3; there are 1 to 2"},
		{"--load=1=constant:5", `--load 1: not a load program: "constant:5", at 10: not a quantity: "5": no unit W`},
		{"--load=*=steady:5W", `--load *: not a load program: "steady:5W", at 1: no program "steady"`},
		{"--load=2=constant:1 --load=1=constant:2", "--load 1: "}, // the first of two, always
		{"--load=constant:5W", `--load: expected "<key>=<value>"`},
		{"--load=1=trace:/nowhere/trace.csv,hold", "at 7: open /nowhere/trace.csv: no such file or directory"},
		{"--load=1=trace:" + write(t, "trace", "one,two\n") + ",hold", "trace"},
		{"--channels=0", "--channels=0: a meter has 1 to 12"},
		{"--channels=13", "--channels=13: a meter has 1 to 12"},
		{"--supply=5", `--supply: not a quantity: "5"`},
		{"--supply=99V", "channel 1: supply 99.000 V is not within"},
		{"--shunt=0", "--shunt=0: it must be within 0.0001 and 10 ohm"},
		{"--shunt=NaN", "--shunt=NaN"},
		{"--noise=-1", "noise -1 is not within"},
		{"--sensor-error=2", "sensor error 2 is not a probability"},
		{"--sweep-period=0s", "--sweep-period=0s"},
		{"--sweep-period=1us", "sweep period 1µs is not within 840µs to 1s"},
		{"--sweep-jitter=5ms", "sweep jitter 5ms is not within 0s to 2ms"},
		{"--report-every=1ms", "report interval 1ms is not within 2ms to 10s"},
		{"--loss=2", "loss 2 is not a probability"},
		{"--loss=-0.1", "loss -0.1 is not a probability"},
		{"--delay=-1s", "delay -1s"},
		{"--listen=5684", "--listen=5684: write HOST:PORT"},
		{"--listen=::1", "--listen=::1: write HOST:PORT"},
		{"--announce", "--announce: nobody else reaches 127.0.0.1:"},
	} {
		refused(t, tc.want, 2, append([]string{"meter", "simulate", "--listen=127.0.0.1:0"}, strings.Fields(tc.args)...)...)
	}
}

func TestSimulatePortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for _, more := range []string{"--loss=0", "--loss=0.1"} {
		refused(t, "address already in use; take another address", 1, "meter", "simulate", "--listen="+taken.LocalAddr().String(), more)
	}
}

// All loads at once, and what they drew when it ends.
func TestSimulateLoads(t *testing.T) {
	t.Parallel()
	trace := write(t, "trace.csv", "0,3\n60,3\n")
	sim := simulate(t, "--ideal", "--load=1=square:2W,4W,2ms", "--load=2=sine:3W,1W,2ms", "--load=3=ramp:2W,4W,2ms",
		"--load=4=trace:"+trace+",linear", "--load=5=constant:1W+constant:2W", "--load=*=constant:-3W")
	out := succeed(t, sim.read("--json", "--count=3", "--every=0s")...)
	for l := range strings.Lines(out) {
		for _, c := range decode[report](t, l).Channels {
			// A period of each is a sweep long.
			want := int64(3_000_000)
			if c.Channel == 6 {
				want = -want
			}
			if c.PowerUW < want-30_000 || c.PowerUW > want+30_000 {
				t.Errorf("channel %d draws %d µW, want %d", c.Channel, c.PowerUW, want)
			}
		}
	}
	if status := sim.end(); status != 0 {
		t.Errorf("status %d", status)
	}
	_, summary, _ := strings.Cut(sim.stdout.String(), "Ctrl-C ends it.\n")
	if !regexp.MustCompile(`^(channel [1-5] drew [0-9.]+ (m|k)?J\n){5}channel 6 drew -[0-9.]+ (m|k)?J\n$`).MatchString(summary) {
		t.Errorf("summary:\n%s", summary)
	}
}

// Everything a network can do to datagrams, at once.
func TestSimulateBadNetwork(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--name=bench-9", "--seed=1", "--loss=0.15", "--duplicate=0.2", "--reorder=0.2", "--delay=5ms", "--jitter=5ms",
		"--clock-drift=100", "--gain-error=500", "--offset-error=10")
	if !strings.Contains(sim.stdout.String(), "Simulated meter bench-9 with 6 channels at "+sim.url) || strings.Contains(sim.stderr.String(), "url=") {
		t.Errorf("it says\n%s\n%s", sim.stdout.String(), sim.stderr.String())
	}
	reading := start(t, sim.read("--json", "--every=0s", "--wait=1h")...)
	reading.until("fifty reports", func() bool { return strings.Count(reading.stdout.String(), "\n") >= 50 })
	reading.end()
	if status := sim.end(); status != 0 {
		t.Errorf("status %d", status)
	}
	network := regexp.MustCompile(`\nchannel 6 drew 0 J\nnetwork: [1-9][0-9]* datagrams passed, [1-9][0-9]* lost, [1-9][0-9]* doubled, [1-9][0-9]* overtaken\n$`)
	if !network.MatchString(sim.stdout.String()) {
		t.Error("no summary, or one without faults")
	}
}

// Whoever reads a meter goes on after the meter lost its power.
func TestSimulateReboot(t *testing.T) {
	t.Parallel()
	// One that loses its power between handshake and first answer costs its reader ten seconds: on a busy machine each short boot may.
	sim := simulate(t, "--reboot-every=12s", "--reboot-takes=100ms")
	reading := start(t, sim.read("--json", "--every=0s", "--wait=1h")...)
	boots := map[uint32]int{}
	var parsed int
	reading.until("five reports of a second boot", func() bool {
		text := reading.stdout.String()
		text = text[:strings.LastIndexByte(text, '\n')+1]
		var last uint32
		for l := range strings.Lines(text[parsed:]) {
			last = decode[report](t, l).BootID
			boots[last]++
		}
		parsed = len(text)
		return len(boots) > 1 && boots[last] >= 5
	})
	if status := reading.end(); status != 0 {
		t.Errorf("interrupted, it ended with %d", status)
	}
	if status := sim.end(); status != 0 || !strings.Contains(sim.stderr.String(), `msg="meter lost its power" for=100ms`) {
		t.Errorf("status %d", status)
	}
}

// What a meter without key file prints can be pasted into a shell.
func TestSimulateWithoutKeyFile(t *testing.T) {
	t.Parallel()
	bash := program(t, "bash")
	sim := start(t, "meter", "simulate", "--listen=127.0.0.1:0", "--name=any")
	url := sim.up()
	m := regexp.MustCompile(`^Simulated meter any with 6 channels at (coaps://127\.0\.0\.1:[0-9]+)
No --psk-file was given: for this run the key is ([A-Za-z0-9]{32})
To read it, in bash:

  (wattctl meter read .*)

Ctrl-C ends it\.
$`).FindStringSubmatch(sim.stdout.String())
	if m == nil || m[1] != url {
		t.Fatalf("it says\n%s", sim.stdout.String())
	}
	succeed(t, "meter", "read", url, "--psk-file="+write(t, "psk", m[2]), "--count=1")
	if out := shell(t, bash, m[3]+" --count=1"); !strings.Contains(out, "METER TIME") {
		t.Errorf("%s\nprints %q", m[3], out)
	}
}

// shell runs a line of commands, of which wattctl is one.
func shell(t *testing.T, bash, line string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "-c", `wattctl() { BE_WATTCTL=1 "$0" "$@"; }; `+line, self)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
	return string(out)
}

// The client that people have at hand reads the meter with the key that wattctl made, and without it gets nothing. It ends with
// 0 whatever happens.
func TestInteroperate(t *testing.T) {
	t.Parallel()
	client := program(t, "coap-client-openssl")
	dir := t.TempDir()
	succeed(t, "meter", "provision", "bench-1", "--dir="+dir)
	file := dir + "/bench-1.psk"
	sim := start(t, "meter", "simulate", "--listen=127.0.0.1:0", "--ideal", "--load=2=constant:5.1W", "--psk-file="+file)
	url := sim.up()
	ask := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), client, append([]string{"-m", "get", "-A", "50"}, args...)...).Output()
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return string(out)
	}
	key := strings.TrimSpace(read(t, file))
	r := decode[report](t, ask("-u", "wattlet", "-k", key, url+"/power"))
	if len(r.Channels) != 6 || r.Channels[1].PowerUW != 5_100_000 {
		t.Errorf("/power: %+v", r)
	}
	for name, args := range map[string][]string{
		"another key":      {"-u", "wattlet", "-k", strings.Repeat("x", 32), url + "/power"},
		"another identity": {"-u", "nobody", "-k", key, url + "/power"},
		"no key":           {url + "/power"},
		"no DTLS":          {strings.Replace(url, "coaps:", "coap:", 1) + "/power"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out := ask(append([]string{"-B", "3"}, args...)...); json.Valid([]byte(out)) || strings.Contains(out, "boot_id") || strings.Contains(out, "energy") {
				t.Errorf("it got %q", out)
			}
		})
	}
}
