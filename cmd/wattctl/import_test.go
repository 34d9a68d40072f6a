package main

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
)

const earlier = `# one section per node
node jetson-nano {
    powermeter_server = "10.0.0.5"
    powermeter_port = 10000
    channel = 6
}
node raspberrypi { powermeter_server = 10.0.0.5 powermeter_port = 0x2710 channel = 5 } // the same board
node odroid { powermeter_server = {"10.0.0.6", "10.0.0.7"} powermeter_port = 30000 }
`

func TestImport(t *testing.T) {
	t.Parallel()
	file := write(t, "power-monitoring.conf", earlier)
	want := "# From " + file + `. Energy of these boards is charge times supply_voltage: measure it and correct it.
meters:
  board-1:
    url: udp://10.0.0.5:10000
    supply_voltage: 5.1V
  board-2:
    url: udp://10.0.0.6:30000
    supply_voltage: 5.1V
nodes:
  jetson-nano:
    meter: board-1
    channel: 6
  odroid:
    meter: board-2
    channel: 1
  raspberrypi:
    meter: board-1
    channel: 5
`
	if got := succeed(t, "config", "import", file, "--supply-voltage=5.1V"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := succeed(t, "config", "import", file); got != strings.ReplaceAll(want, "5.1V", "5V") {
		t.Errorf("without --supply-voltage got\n%s", got)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	const server = `powermeter_server = "10.0.0.5" powermeter_port = 10000`
	for _, tc := range []struct{ text, want string }{
		{"\nnode a {\n\tspeed = 3\n}\n", `.conf:3: earlier client's configuration: no such option "speed"`},
		{"node a {\n" + server + "\nchannel = 300 }", `.conf:3: earlier client's configuration: node "a": channel 300 is not 1 to 6`},
		{"node a { channel = 3 }", `.conf:1: earlier client's configuration: node "a" has no powermeter_server`},
		{"\nnode a {\n", `.conf:2: earlier client's configuration: node "a" has no closing brace`},
		{"node a {" + server + " channel = 2 }\nnode b {" + server + " channel = 2 }\n",
			`.conf:2: node "b": channel 2 of 10.0.0.5:10000 measures node "a" already`},
		{"", ".conf: there is no node in it"},
		{"# nothing\n", ".conf: there is no node in it"},
	} {
		refused(t, tc.want, 2, "config", "import", write(t, "a.conf", tc.text))
	}
	refused(t, "stat /nowhere/a.conf: no such file or directory", 2, "config", "import", "/nowhere/a.conf")
	refused(t, "exists but is a directory", 2, "config", "import", t.TempDir())
	good := write(t, "a.conf", earlier)
	for _, v := range []string{"5", "5W", "five", "0V", "-5V", "1000V"} {
		refused(t, "voltage", 2, "config", "import", good, "--supply-voltage="+v)
	}
}

// The agent takes the file for each of its nodes: it fails for want of an answer and not because of the file.
func TestImportedFileRuns(t *testing.T) {
	t.Parallel()
	path := agent(t)
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	_, port, err := net.SplitHostPort(silent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	old := strings.NewReplacer("10.0.0.5", "127.0.0.1", "10.0.0.6", "127.0.0.1", "10000", port, "0x2710", port, "30000", port).Replace(earlier)
	cluster := write(t, "cluster.yaml", succeed(t, "config", "import", write(t, "a.conf", old)))
	for _, node := range []string{"jetson-nano", "raspberrypi", "odroid"} {
		_, err := exec.Command(path, "--config.file="+cluster, "--node="+node, "--once", "--once.timeout=1s", "--log.level=error").Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(exit.Stderr), "node "+node+": no reading") {
			t.Errorf("node %s: %v", node, err)
			if exit != nil {
				t.Errorf("stderr: %s", exit.Stderr)
			}
		}
	}
}
