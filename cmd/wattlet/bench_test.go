package main

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// BenchmarkCost measures what the agent costs as it is shipped: as a process of its own, so that nothing of meter, scraper and
// this test is in the figures, and beside node_exporter in the same run. docs/cost.md explains its table.
func BenchmarkCost(b *testing.B) {
	var table bytes.Buffer
	fmt.Fprintf(&table, "\nWhat the agent costs: %s/%s, %d cores, %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	if b.Run("scrapes", func(b *testing.B) { benchmarkScrapes(b, &table) }) &&
		b.Run("attribution", func(b *testing.B) { benchmarkAttribution(b, &table) }) &&
		b.Run("names", func(b *testing.B) { benchmarkKube(b, &table) }) &&
		b.Run("watchdogs", func(b *testing.B) { benchmarkWatchdogs(b, &table) }) &&
		b.Run("notifications", func(b *testing.B) { benchmarkNotifications(b, &table) }) {
		fmt.Println(table.String())
	}
}

// row prints a line of the table.
func row(table io.Writer, what string, values ...string) {
	fmt.Fprintf(table, "%-44s", what)
	for _, v := range values {
		fmt.Fprintf(table, "%18s", v)
	}
	fmt.Fprintln(table)
}

// median and p99 of measured values.
func median(values []float64) float64 { return quantile(values, 0.5) }
func p99(values []float64) float64    { return quantile(values, 0.99) }

func quantile(values []float64, q float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// program is a running process that is measured.
type program struct {
	name   string
	pid    int
	url    string
	client http.Client

	// Of each scrape in ms: as Prometheus asks for it, its CPU time, and without compression.
	took, used, plain []float64
	series            int
	rest              float64 // CPU in percent of a core, nobody asking
	rss, anon, file   float64 // MiB
}

// start runs a program until the benchmark ends and waits until it serves.
func start(b *testing.B, name, path string, args ...string) *program {
	b.Helper()
	cmd := exec.Command(path, append(args, "--web.listen-address=127.0.0.1:0")...)
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }) // which says that it was killed
	p := &program{name: name, pid: cmd.Process.Pid}
	p.client.Transport = &http.Transport{DisableCompression: true} // the header is ours
	b.Cleanup(p.client.CloseIdleConnections)
	var read strings.Builder
	for lines := bufio.NewScanner(log); p.url == "" && lines.Scan(); {
		fmt.Fprintln(&read, lines.Text())
		if _, after, ok := strings.Cut(lines.Text(), `msg="Listening on" address=`); ok {
			p.url = "http://" + strings.Fields(after)[0]
		}
	}
	if p.url == "" {
		b.Fatalf("%v ended before it served:\n%s", cmd.Args, read.String())
	}
	go func() { _, _ = io.Copy(io.Discard, log) }() // so that it is never held up
	return p
}

// startMeasured runs the agent for one node, which a meter's channel 1 measures, without state.
func startMeasured(b *testing.B, meterURL string, args ...string) *program {
	b.Helper()
	path, err := binary()
	psk := filepath.Join(b.TempDir(), "psk")
	if err = errors.Join(err, os.WriteFile(psk, testKey, 0o600)); err != nil {
		b.Fatal(err)
	}
	return start(b, "wattlet", path, append(args, "--node=pi", "--meter.url="+meterURL, "--meter.psk-file="+psk, "--state.directory=")...)
}

// cpu is the CPU time in user and kernel mode that the process has used.
func (p *program) cpu(b *testing.B) time.Duration {
	b.Helper()
	const scheduled = 2            // CPUCLOCK_SCHED: to the nanosecond, not in ticks
	clock := ^p.pid<<3 | scheduled // clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(clock), &ts); err != nil {
		b.Fatalf("CPU time of %s: %v", p.name, err)
	}
	return time.Duration(ts.Nano())
}

// memory reads what the process has in memory (proc_pid_status(5)).
func (p *program) memory(b *testing.B) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for field, to := range map[string]*float64{"VmRSS": &p.rss, "RssAnon": &p.anon, "RssFile": &p.file} {
		_, after, _ := strings.Cut(string(status), "\n"+field+":")
		var kib float64
		if _, err := fmt.Sscanf(after, "%f kB", &kib); err != nil {
			b.Fatalf("%s of %s: %v", field, p.name, err)
		}
		*to = kib / 1024
	}
}

// exe is the program's file.
func (p *program) exe() string { return fmt.Sprintf("/proc/%d/exe", p.pid) }

func (p *program) size(b *testing.B) string {
	b.Helper()
	info, err := os.Stat(p.exe())
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}

// modules is how many the program says it is linked from; Debian's do not say.
func (p *program) modules() string {
	info, err := buildinfo.ReadFile(p.exe())
	if err != nil || len(info.Deps) == 0 {
		return "?"
	}
	return strconv.Itoa(len(info.Deps))
}

// get fetches a page over the connection kept from the one before.
func (p *program) get(b *testing.B, path, encoding string) []byte {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	req.Header.Set("Accept-Encoding", encoding)
	resp, err := p.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s, %v", req.URL, resp.Status, err)
	}
	return body
}

// taken is how many notifications the agent has taken in, by a snapshot made from now on.
func (p *program) taken(b *testing.B) uint64 {
	b.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for now := time.Now(); ; <-poll.C {
		var v exporter.SnapshotView
		if err := json.Unmarshal(p.get(b, "/api/v1/snapshot", "identity"), &v); err != nil {
			b.Fatal(err)
		}
		if v.Time.After(now) {
			return v.Meters[0].Notifications
		}
	}
}

// benchmarkScrapes measures memory, and scrapes of one node's series, of the agent and node_exporter in turn.
func benchmarkScrapes(b *testing.B, table io.Writer) {
	b.Helper()
	const scrapes, rest = 400, 10 * time.Second
	sim, err := metersim.Listen(metersim.Options{
		PSK: metersim.OneKey("wattlet", testKey), Channels: []metersim.Channel{{Load: metersim.Constant(5 * energy.Watt)}},
	})
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- sim.Run(b.Context()) }() // which ends just before the cleanups
	b.Cleanup(func() {
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	agent := startMeasured(b, sim.URL())
	programs := []*program{agent}
	if path, err := exec.LookPath("prometheus-node-exporter"); err == nil {
		programs = append(programs, start(b, "node_exporter", path))
	} else {
		b.Log("node_exporter is left out: it is not in PATH; make bench unpacks it")
	}
	for taken := uint64(0); taken < 10; taken = agent.taken(b) {
		continue // until it is warm
	}

	for b.Loop() {
		for _, p := range programs {
			p.rest = ms(p.cpu(b))
		}
		<-time.After(rest)
		for _, p := range programs {
			p.rest = (ms(p.cpu(b)) - p.rest) / ms(rest) * 100
		}
		for range scrapes {
			for _, p := range programs {
				// Looked at when the next begins, since a process goes on for a moment after its answer is here.
				p.used = append(p.used, ms(p.cpu(b)))
				began := time.Now()
				p.get(b, "/metrics", "gzip")
				p.took = append(p.took, ms(time.Since(began)))
			}
		}
		for _, p := range programs {
			p.memory(b)
			for i := range len(p.used) - 1 {
				p.used[i] = p.used[i+1] - p.used[i]
			}
			p.used = p.used[:len(p.used)-1]
		}
		for range scrapes {
			for _, p := range programs {
				began := time.Now()
				body := p.get(b, "/metrics", "identity")
				p.plain = append(p.plain, ms(time.Since(began)))
				p.series = len(samples(body))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, p := range programs {
		b.ReportMetric(p.rss, p.name+"-RSS-MiB")
		b.ReportMetric(median(p.took), p.name+"-scrape-p50-ms")
		b.ReportMetric(p99(p.took), p.name+"-scrape-p99-ms")
		b.ReportMetric(median(p.used), p.name+"-scrape-cpu-ms")
	}
	for _, line := range []struct {
		what  string
		value func(p *program) string
	}{
		{"", func(p *program) string { return p.name }},
		{"program file", func(p *program) string { return p.size(b) }},
		{"modules in it", func(p *program) string { return p.modules() }},
		{"memory after 400 scrapes (RSS)", func(p *program) string { return fmt.Sprintf("%.1f MiB", p.rss) }},
		{"  anonymous", func(p *program) string { return fmt.Sprintf("%.1f MiB", p.anon) }},
		{"  mapped from files", func(p *program) string { return fmt.Sprintf("%.1f MiB", p.file) }},
		{"series in a scrape", func(p *program) string { return strconv.Itoa(p.series) }},
		{"scrape as Prometheus asks, median", func(p *program) string { return fmt.Sprintf("%.2f ms", median(p.took)) }},
		{"  99th percentile", func(p *program) string { return fmt.Sprintf("%.2f ms", p99(p.took)) }},
		{"  CPU time, median", func(p *program) string { return fmt.Sprintf("%.2f ms", median(p.used)) }},
		{"scrape without compression, median", func(p *program) string { return fmt.Sprintf("%.2f ms", median(p.plain)) }},
		{"CPU between scrapes, of one core", func(p *program) string { return fmt.Sprintf("%.3f %%", p.rest) }},
	} {
		values := make([]string, 0, len(programs))
		for _, p := range programs {
			values = append(values, line.value(p))
		}
		row(table, line.what, values...)
	}
}

// samples are the lines of a scrape that are not comments.
func samples(scrape []byte) [][]byte {
	return slices.DeleteFunc(bytes.Split(bytes.TrimSpace(scrape), []byte("\n")), func(l []byte) bool { return bytes.HasPrefix(l, []byte("#")) })
}

// benchmarkNotifications measures what a notification costs when they come as fast as the agent takes them, of six channels,
// without and with the samples of 100 ms.
func benchmarkNotifications(b *testing.B, table io.Writer) {
	b.Helper()
	const rounds, round = 10, time.Second
	m := startFlood(b)
	agent := startMeasured(b, "coaps://"+m.listener.Addr().String(), "--tick=50ms")
	if err := m.serve(); err != nil {
		b.Fatal(err)
	}
	kinds := []struct {
		name string
		rest []byte // of the report, after what differs from one to the next
		size int
		// Per round: notifications taken in per second, CPU time of each in microseconds, and those sent in vain.
		rate, cpu []float64
		lost      uint64
	}{{name: "bare", rest: channels(b, 0)}, {name: "samples", rest: channels(b, 50)}}
	for b.Loop() {
		for range rounds {
			for i := range kinds {
				k := &kinds[i]
				sent, taken, used, began := m.seq, agent.taken(b), agent.cpu(b), time.Now()
				for time.Since(began) < round {
					var err error
					if k.size, err = m.send(k.rest); err != nil {
						b.Fatal(err)
					}
				}
				if err := m.drain(); err != nil {
					b.Fatal(err)
				}
				used, took := agent.cpu(b)-used, time.Since(began)
				taken = agent.taken(b) - taken
				k.rate = append(k.rate, float64(taken)/took.Seconds())
				k.cpu = append(k.cpu, 1e3*ms(used)/float64(taken))
				k.lost += uint64(m.seq-sent) - taken
			}
		}
	}
	agent.memory(b)
	b.ReportMetric(0, "ns/op")
	var sizes, cpu, perCore, rate, lost []string
	for _, k := range kinds {
		b.ReportMetric(median(k.cpu), k.name+"-cpu-us/notification")
		b.ReportMetric(median(k.rate), k.name+"-notifications/s")
		sizes = append(sizes, fmt.Sprintf("%d bytes", k.size))
		cpu = append(cpu, fmt.Sprintf("%.1f µs", median(k.cpu)))
		perCore = append(perCore, fmt.Sprintf("%.0f/s", 1e6/median(k.cpu)))
		rate = append(rate, fmt.Sprintf("%.0f/s", median(k.rate)))
		lost = append(lost, strconv.FormatUint(k.lost, 10))
	}
	fmt.Fprintln(table)
	row(table, "notifications of 6 channels over DTLS", "without samples", "with 6 × 50")
	row(table, "size of a message, without DTLS", sizes...)
	row(table, "CPU time of the agent for one, median", cpu...)
	row(table, "so a core takes in", perCore...)
	row(table, "taken in here, sender on the other core", rate...)
	row(table, "sent and not taken in", lost...)
	row(table, "memory of the agent after that (RSS)", fmt.Sprintf("%.1f MiB", agent.rss))
}

// channels encodes what is alike in all reports of a flood: six channels and, if sweeps is not 0, a batch. Encoded messages
// that follow one another are one message (protobuf encoding, "Last One Wins").
func channels(b *testing.B, sweeps int) []byte {
	b.Helper()
	r := &meterpb.Report{IntervalUs: 100_000, Sweeps: 31_536_000_000}
	numbers, counts, ok := []uint32{1, 2, 3, 4, 5, 6}, make([]int32, 6), []bool{true, true, true, true, true, true}
	for _, n := range numbers {
		r.Channels = append(r.Channels, &meterpb.ChannelReport{
			Channel: n, EnergyUj: 157_680_000_000_000, ChargeUc: 31_536_000_000_000, PowerUw: 5_012_345, PowerDropUw: 81_000,
			PowerRiseUw: 93_000, VoltageUv: 5_104_000, VoltageDropUv: 8_000, VoltageRiseUv: 16_000, CurrentUa: 982_000,
		})
	}
	batch := wire.NewBatchWriter(numbers, 2000)
	for i := range sweeps {
		for c := range counts {
			counts[c] = 1230 + int32((i*7+c*3)%11) // some noise: one byte a sample
		}
		batch.Add(counts, ok)
	}
	if sweeps > 0 {
		r.Batch = batch.Close()
	}
	out, err := proto.Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

const (
	// pace is how many notifications of a flood go between two pings, and window how many pings may be unanswered: what is
	// on the way fits the smallest usual socket buffer (208 KiB, each datagram counted as 2.3), so that nothing is lost.
	pace, window = 32, 2
	floodBoot    = 0xdeadbeef
)

// flood is a meter that sends reports as fast as its one observer takes them. CoAP's ping (RFC 7252 section 4.3) tells how far
// that is, and costs the observer one small answer to 32 notifications.
type flood struct {
	listener net.Listener
	conn     net.Conn
	token    message.Token
	observed chan error
	pongs    chan struct{}
	began    time.Time
	seq      uint32
	mid      uint16
	buf      []byte
}

func startFlood(b *testing.B) *flood {
	b.Helper()
	l, err := dtls.ListenWithOptions("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)},
		dtls.WithPSK(func([]byte) ([]byte, error) { return testKey, nil }), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8))
	if err != nil {
		b.Fatal(err)
	}
	m := &flood{listener: l, observed: make(chan error, 1), pongs: make(chan struct{}, window), began: time.Now()}
	for range window {
		m.pongs <- struct{}{}
	}
	b.Cleanup(func() {
		if m.conn != nil {
			m.conn.Close()
		}
		l.Close()
	})
	return m
}

// serve waits for the observer and answers what it asks until the connection is closed.
func (m *flood) serve() (err error) {
	if m.conn, err = m.listener.Accept(); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := m.conn.Read(buf)
			if err == nil {
				err = m.answer(buf[:n])
			}
			if err != nil {
				select {
				case m.observed <- err:
				default:
				}
				return
			}
		}
	}()
	return <-m.observed
}

// answer answers one message of the observer.
func (m *flood) answer(datagram []byte) error {
	in := message.Message{Options: make(message.Options, 0, 16)}
	if _, err := coder.DefaultCoder.Decode(datagram, &in); err != nil {
		return err
	}
	if in.Type == message.Reset { // of a ping
		m.pongs <- struct{}{}
		return nil
	}
	path, err := in.Options.Path()
	if err != nil {
		return err
	}
	var body proto.Message
	switch now := uint64(time.Since(m.began).Microseconds()); path {
	case wire.PathMeter:
		body = &meterpb.Identity{BootId: floodBoot, Name: "flood", TUs: now}
	case wire.PathTime:
		body = &meterpb.Time{BootId: floodBoot, ReceivedUs: now, SentUs: now}
	case wire.PathPower:
		m.token = slices.Clone(in.Token)
		m.seq++
		body = &meterpb.Report{BootId: floodBoot, Seq: m.seq, TUs: now, Channels: []*meterpb.ChannelReport{{Channel: 1}}}
	default:
		return fmt.Errorf("flood has no %s", path)
	}
	out := header(nil, message.Acknowledgement, uint16(in.MessageID), in.Token)
	if path == wire.PathPower {
		out = append(out, 0x63, 0, 0, byte(m.seq), 0x61) // as in send
	} else {
		out = append(out, 0xc1)
	}
	if out, err = (proto.MarshalOptions{}).MarshalAppend(append(out, byte(message.AppOctets), 0xff), body); err != nil {
		return err
	}
	if _, err = m.conn.Write(out); err == nil && path == wire.PathPower {
		m.observed <- nil
	}
	return err
}

// header begins a message with code 2.05 (RFC 7252 section 3).
func header(b []byte, typ message.Type, mid uint16, token message.Token) []byte {
	return append(append(b, 1<<6|byte(typ)<<4|byte(len(token)), byte(codes.Content), byte(mid>>8), byte(mid)), token...)
}

// send sends pace notifications with the same rest and a ping, once few enough are on the way. It returns the size of one.
func (m *flood) send(rest []byte) (size int, err error) {
	if err := m.pong(); err != nil {
		return 0, err
	}
	for range pace {
		m.seq++
		m.mid++
		out := header(m.buf[:0], message.NonConfirmable, m.mid, m.token)
		// Options Observe, 3 bytes, and Content-Format, 1 byte (RFC 7252 section 3.1, RFC 7641 section 2).
		out = append(out, 0x63, byte(m.seq>>16), byte(m.seq>>8), byte(m.seq), 0x61, byte(message.AppOctets), 0xff)
		out, err = proto.MarshalOptions{}.MarshalAppend(out, &meterpb.Report{
			BootId: floodBoot, Seq: m.seq, TUs: uint64(time.Since(m.began).Microseconds()),
		})
		if err != nil {
			return 0, err
		}
		m.buf = append(out, rest...)
		if _, err := m.conn.Write(m.buf); err != nil {
			return 0, err
		}
	}
	m.mid++
	_, err = m.conn.Write([]byte{1 << 6, byte(codes.Empty), byte(m.mid >> 8), byte(m.mid)})
	return len(m.buf), err
}

// pong waits for the answer to a ping.
func (m *flood) pong() error {
	select {
	case <-m.pongs:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("the agent does not answer a ping")
	}
}

// drain waits until nothing is on the way.
func (m *flood) drain() error {
	for range window {
		if err := m.pong(); err != nil {
			return err
		}
	}
	for range window {
		m.pongs <- struct{}{}
	}
	return nil
}
