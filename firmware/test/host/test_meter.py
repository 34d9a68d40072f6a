"""The meter as a process, from outside: over the network, and by what it prints. METER names the program."""

import json
import os
import queue
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from coap import *

METER = os.environ["METER"]
SECOND = 1_000_000_000


def clients():
    return ["coap-client-openssl", "coap-client-gnutls"]


def decode(message, data):
    """A protobuf message as text, by protoc, which fails on bytes that are none."""
    proto = os.environ["PROTO"]
    return subprocess.run(["protoc", "--proto_path=" + os.path.dirname(proto), "--decode=wattlet.meter.v1." + message, proto],
                          input=data, capture_output=True, check=True).stdout.decode()


def field(text, name):
    m = re.search(rf"^{name}: (\S+)", text, re.M)
    return m and m[1]


class Resources(unittest.TestCase):
    """What the resources answer, byte for byte as the Go simulator has it."""

    @classmethod
    def setUpClass(cls):
        cls.meter = Meter("--plain", "--load=1=5@5", "--load=6=2@5", settings=["channel 6 name jetson-nano"])
        cls.meter.wait_for(lambda r: r.seq == 3)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.meter.finish()
        finally:
            cls.meter.__exit__()

    def setUp(self):  # A peer of its own for each test: a peer's rate is limited.
        self.client = Client(self.meter.port)

    def tearDown(self):
        self.client.socket.close()

    def whole(self, path, **how):
        """A body, fetched in blocks if it has to be. All blocks are of one ETag."""
        body, tags, options = b"", set(), how.pop("options", [])
        for number in range(100):
            m = self.client.get(path, options=[*options, *([(BLOCK2, number << 4 | 6)] if number else [])], **how)
            self.assertEqual(m.status, "2.05", f"{path}: {m.payload}")
            tags.add(m.option(ETAG))
            body += m.payload
            block = m.option(BLOCK2)
            if block is None or not block & 8:
                self.assertEqual(len(tags), 1, "the body changed between two blocks")
                return m, body
        self.fail("no end")

    def test_protobuf(self):
        for path, message in (("meter", "Identity"), ("power", "Report"), ("samples?from=1", "SampleList"), ("time", "Time")):
            for options in [], [(ACCEPT, PROTOBUF)]:
                m, body = self.whole(path, options=options)
                self.assertEqual(m.option(CONTENT_FORMAT), PROTOBUF, path)
                text = decode(message, body)
                self.assertEqual(int(field(text, "boot_id"), 0), self.meter.boot, path)
                if path != "meter":
                    self.assertLessEqual(len(body), 1024, path)
        identity = decode("Identity", self.whole("meter")[1])
        self.assertIn('name: "jetson-nano"', identity)
        self.assertEqual(field(identity, "max_observers"), "32")

    def test_json(self):
        for path in "meter", "power", "samples?from=1", "time":
            m, body = self.whole(path, options=[(ACCEPT, JSON)])
            self.assertEqual(m.option(CONTENT_FORMAT), JSON, path)
            self.assertEqual(json.loads(body)["boot_id"], self.meter.boot, path)
        self.assertEqual(len(json.loads(self.whole("meter", options=[(ACCEPT, JSON)])[1])["channels"]), 6)

    def test_small_blocks(self):
        """A peer may ask for smaller blocks than there have to be."""
        for path, accept in (("meter", JSON), ("power", JSON), ("power", PROTOBUF), ("samples?from=1", JSON)):
            body, tags = b"", set()
            for number in range(1000):
                m = self.client.get(path, options=[(ACCEPT, accept), (BLOCK2, number << 4 | 4)])
                self.assertEqual(m.status, "2.05", m.payload)
                self.assertLessEqual(len(m.payload), 256)
                self.assertEqual(m.option(BLOCK2) >> 4, number)
                tags.add(m.option(ETAG))
                body += m.payload
                if not m.option(BLOCK2) & 8:
                    break
                if number == 0:  # What comes meanwhile is no part of it.
                    with Client(self.meter.port) as other:
                        seq = lambda: json.loads(other.get("power", options=[(ACCEPT, JSON)]).payload)["seq"]
                        now = seq()
                        self.meter.eventually("another report", lambda: seq() > now)
            self.assertEqual(len(tags), 1, path)
            if accept == JSON:
                self.assertEqual(json.loads(body)["boot_id"], self.meter.boot, path)
            else:
                decode("Report", body)
        self.assertEqual(self.client.get("time", options=[(BLOCK2, 99 << 4 | 6)]).status, "4.00")

    def test_links(self):
        for options in [], [(ACCEPT, LINKS)]:
            m = self.client.get(".well-known/core", options=options)
            self.assertEqual((m.status, m.option(CONTENT_FORMAT)), ("2.05", LINKS))
            self.assertEqual(m.payload.decode().split(","), [
                '</meter>;rt="wattlet.meter.v1.Identity";ct="42 50"', '</power>;rt="wattlet.meter.v1.Report";ct="42 50";obs',
                '</samples>;rt="wattlet.meter.v1.SampleList";ct="42 50"', '</time>;rt="wattlet.meter.v1.Time";ct="42 50"'])

    def test_errors(self):
        for path, options, status, code in (
            ("nope", [], "4.04", "CODE_NOT_FOUND"), ("", [], "4.04", "CODE_NOT_FOUND"), ("power/1", [], "4.04", "CODE_NOT_FOUND"),
            ("power", [(ACCEPT, 0)], "4.06", "CODE_NOT_ACCEPTABLE"), ("meter", [(ACCEPT, 60)], "4.06", "CODE_NOT_ACCEPTABLE"),
            (".well-known/core", [(ACCEPT, JSON)], "4.06", "CODE_NOT_ACCEPTABLE"),
            ("samples", [], "4.00", "CODE_BAD_REQUEST"), ("samples?from=", [], "4.00", "CODE_BAD_REQUEST"),
            ("samples?from=-1", [], "4.00", "CODE_BAD_REQUEST"), ("samples?from=x", [], "4.00", "CODE_BAD_REQUEST"),
            ("samples?from=1x", [], "4.00", "CODE_BAD_REQUEST"), ("samples?from=+1", [], "4.00", "CODE_BAD_REQUEST"),
            ("samples?from=4294967296", [], "4.00", "CODE_BAD_REQUEST"), ("samples?from=99999999999999999999999", [], "4.00", "CODE_BAD_REQUEST"),
            ("samples?till=1", [], "4.00", "CODE_BAD_REQUEST"),
        ):
            with self.subTest(path=path, options=options):
                m = self.client.get(path, options=options)
                self.assertEqual(m.status, status)
                if m.option(CONTENT_FORMAT) == JSON:
                    error = json.loads(m.payload)
                    self.assertEqual(error["code"], code)
                    self.assertTrue(error["message"])
                else:
                    text = decode("Error", m.payload)
                    self.assertEqual(field(text, "code"), code)
                    self.assertTrue(field(text, "message"))
        m = self.client.get("nope", options=[(ACCEPT, JSON)])
        self.assertEqual(json.loads(m.payload)["code"], "CODE_NOT_FOUND")
        for path in "power", "meter", "time", "samples", ".well-known/core":
            with Client(self.meter.port) as other:
                for method in POST, PUT, DELETE, FETCH, PATCH, IPATCH:
                    # libcoap 4.3.5 wants FETCH to say of what form its body is, RFC 8132 section 2.2.
                    m = other.get(path, code=method, options=[(CONTENT_FORMAT, PROTOBUF)])
                    self.assertEqual((m.status, field(decode("Error", m.payload), "code")), ("4.05", "CODE_BAD_REQUEST"), (path, method))
        self.assertEqual(self.client.get("nope", code=DELETE).status, "4.04")
        self.assertEqual(self.client.get("samples?a=b&from=4294967295").status, "2.05")
        self.assertEqual(self.client.get("time?a=b", type=NON).status, "2.05")

    def test_samples_do_not_change(self):
        """What is asked for again is the same."""
        first = json.loads(self.whole("samples?from=1", options=[(ACCEPT, JSON)])[1])
        again = json.loads(self.whole("samples?from=1", options=[(ACCEPT, JSON)])[1])
        n = min(len(first["batches"]), len(again["batches"]))
        self.assertGreater(n, 0)
        self.assertEqual(first["batches"][:n], again["batches"][:n])

    def test_time(self):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.meter.start
        t = decode("Time", self.client.get("time").payload)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.meter.start
        received, sent = int(field(t, "received_us")), int(field(t, "sent_us"))
        self.assertLessEqual(before // 1000, received)
        self.assertLessEqual(received, sent)
        self.assertLessEqual(sent, after // 1000)

    def test_rate(self):
        """A peer that asks too often is told to come later; another is not."""
        with Client(self.meter.port) as hasty, Client(self.meter.port) as patient:
            refused = 0
            for _ in range(120):
                m = hasty.get("time", options=[(ACCEPT, JSON)])
                if m.status == "5.03":
                    refused += 1
                    error = json.loads(m.payload)
                    self.assertEqual((error["code"], error["retry_after_ms"], m.option(MAX_AGE)), ("CODE_BUSY", 1000, 1))
            self.assertGreater(refused, 20)
            self.assertEqual(patient.get("time").status, "2.05")


class Observers(unittest.TestCase):
    def setUp(self):
        self.meter = Meter("--plain", "--load=1=5@5")
        self.meter.wait_for(lambda r: r.seq == 1)

    def tearDown(self):
        try:
            self.meter.finish()
        finally:
            self.meter.__exit__()

    def observe(self, client, token=b"tokn", accept=JSON, type=CON):
        m = client.get("power", token=token, type=type, options=[(OBSERVE, 0), (ACCEPT, accept)])
        return m

    def test_notifications(self):
        """Each report comes once, NON but for one CON in 5 s, which holds nothing back while it waits; an ACK ends its repetition."""
        with Client(self.meter.port) as c:
            m = self.observe(c)
            self.assertEqual(m.status, "2.05")
            seq, order = json.loads(m.payload)["seq"], m.option(OBSERVE)
            self.assertEqual(m.option(ETAG), seq)
            con, after, repeated, confirmed = None, 0, 0, 0
            while confirmed < 2:
                self.assertLess(seq, 250, "no CON, or none that is repeated")
                m = c.receive()
                if con and m.type == CON and m.mid == con.mid:
                    self.assertEqual(m.payload, con.payload)
                    repeated += 1
                    c.empty(ACK, m.mid)
                    confirmed += 1
                    con = None
                    continue
                self.assertEqual((m.status, m.token, m.option(CONTENT_FORMAT)), ("2.05", b"tokn", JSON))
                self.assertEqual((json.loads(m.payload)["seq"], m.option(OBSERVE)), (seq + 1, order + 1))
                seq, order = seq + 1, order + 1
                if m.type == CON:
                    self.assertIsNone(con, "two CONs wait")
                    con, after = m, 0
                elif con:
                    after += 1
            self.assertEqual(repeated, 2)
            self.assertGreater(after, 5, "no notifications while a CON waited")

    def test_leaving(self):
        with Client(self.meter.port) as c:
            self.observe(c)
            m = c.get("power", token=b"tokn", options=[(OBSERVE, 1)])
            self.assertEqual((m.status, m.option(OBSERVE)), ("2.05", None))
            self.assertIsNone(c.receive(1), "notified after it left")
            self.observe(c)
            c.empty(RST, c.receive().mid)
            # What was on its way may still come.
            end = time.monotonic() + PATIENCE
            while c.receive(1):
                self.assertLess(time.monotonic(), end, "a Reset changes nothing")

    def test_end(self):
        """Who observes is told that it is over."""
        with Meter("--plain") as m, Client(m.port) as c:
            m.wait_for(lambda r: r.seq >= 1)
            self.observe(c)
            m.finish()
            answers = []
            while a := c.receive(0.1):
                answers.append((a.status, a.token))
            self.assertEqual(answers[-1], ("4.04", b"tokn"))

    def test_formats(self):
        """Each observer has its own format, and asking again with the same token is no second observation."""
        with Client(self.meter.port) as c, Client(self.meter.port) as d:
            self.observe(c, accept=JSON)
            self.observe(d, accept=PROTOBUF)
            for _ in range(3):
                self.observe(c, accept=JSON, type=NON)
            for _ in range(3):
                self.assertEqual(json.loads(c.receive().payload)["boot_id"], self.meter.boot)
                self.assertEqual(int(field(decode("Report", d.receive().payload), "boot_id"), 0), self.meter.boot)
            self.assertEqual([line for line in self.meter.log if "came" in line][1:], [line for line in self.meter.log if "2 observers" in line])

    def test_a_request_that_fails_observes_nothing(self):
        with Client(self.meter.port) as c:
            self.assertEqual(c.get("power", options=[(OBSERVE, 0), (ACCEPT, 0)]).status, "4.06")
            self.assertEqual(c.get("time", options=[(OBSERVE, 0)]).option(OBSERVE), None)
            self.assertIsNone(c.receive(1))

    def test_peers(self):
        """More peers than there are places come one after another: those that observe nothing make room, an observer stays."""
        with Client(self.meter.port) as c:
            seqs = [json.loads(self.observe(c).payload)["seq"]]
            others = [Client(self.meter.port) for _ in range(300)]
            try:
                for other in others:
                    self.assertEqual(other.get("time").status, "2.05")
                self.assertEqual(others[0].get("time").status, "2.05", "one that had to leave comes again")
            finally:
                for other in others:
                    other.socket.close()
            latest = json.loads(c.get("power", options=[(ACCEPT, JSON)]).payload)["seq"]
            self.assertGreaterEqual(latest, seqs[0])
            # get has passed over what came before; what comes now comes whole.
            a, b = json.loads(c.receive().payload)["seq"], json.loads(c.receive().payload)["seq"]
            self.assertEqual(b, a + 1)

    def test_places(self):
        """32 observers get every report, the 33rd is told to come later, and gets the place of one that goes."""
        all = [Client(self.meter.port) for _ in range(32)]
        try:
            seqs = [[json.loads(self.observe(c).payload)["seq"]] for c in all]
            with Client(self.meter.port) as late:
                for type in CON, NON:
                    m = self.observe(late, type=type)
                    self.assertEqual((m.status, m.option(OBSERVE), m.option(MAX_AGE)), ("5.03", None, 5))
                    self.assertEqual(json.loads(m.payload), {"code": "CODE_BUSY", "message": "32 observers, no place left", "retry_after_ms": 5000})
                    self.assertIsNone(late.receive(0.5), "refused, and notified")
                for _ in range(60):
                    for c, got in zip(all, seqs):
                        m = c.receive()
                        if m.type == CON:
                            c.empty(ACK, m.mid)
                        got.append(json.loads(m.payload)["seq"])
                for got in seqs:
                    self.assertEqual(got, list(range(got[0], got[0] + 61)))
                # A reset tells libcoap alone; the place is found free because no notification goes there any more.
                all[7].empty(RST, all[7].receive().mid)
                self.meter.eventually("a place", lambda: self.observe(late).status == "2.05")
        finally:
            for c in all:
                c.socket.close()


class Clients(unittest.TestCase):
    """Debian's CoAP clients over DTLS. They end with 0 whatever happens, so what they print counts."""

    @classmethod
    def setUpClass(cls):
        cls.meter = Meter("--load=1=5@5")
        cls.meter.wait_for(lambda r: r.seq == 2)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.meter.finish()
        finally:
            cls.meter.__exit__()

    def ask(self, client, path, *arguments, key=KEY, identity=IDENTITY):
        r = subprocess.run([client, "-m", "get", "-u", identity, "-k", key, *arguments, self.meter.url + path],
                           capture_output=True, timeout=PATIENCE, check=True)
        return r.stdout, r.stderr.decode()

    def test_reading(self):
        for client in clients():
            for path in "/meter", "/power", "/samples?from=1", "/time":
                with self.subTest(client=client, path=path):
                    self.assertEqual(json.loads(self.ask(client, path, "-A", "50")[0])["boot_id"], self.meter.boot)
            # Bytes that cannot be printed go into a file as they are.
            for path, message in (("/time", "Time"), ("/meter", "Identity"), ("/power", "Report"), ("/samples?from=1", "SampleList")):
                with self.subTest(client=client, path=path):
                    with tempfile.NamedTemporaryFile() as f:
                        self.ask(client, path, "-o", f.name)
                        self.assertEqual(int(field(decode(message, f.read()), "boot_id"), 0), self.meter.boot)
            self.assertIn(b"</power>;", self.ask(client, "/.well-known/core")[0])

    def test_errors(self):
        for client in clients():
            self.assertRegex(self.ask(client, "/nope", "-A", "50")[1], r"^4\.04 .*CODE_NOT_FOUND")
            self.assertRegex(self.ask(client, "/samples?from=x", "-A", "50")[1], r"^4\.00 .*CODE_BAD_REQUEST")

    def test_observing(self):
        for client in clients():
            out = self.ask(client, "/power", "-A", "50", "-s", "2")[0].decode()
            seqs = [int(s) for s in re.findall(r'"seq": ?(\d+)', out)]
            self.assertGreater(len(seqs), 5)
            self.assertEqual(seqs, list(range(seqs[0], seqs[0] + len(seqs))))

    def test_strangers_get_nothing(self):
        strangers = (("another secret key", IDENTITY), (KEY, "nobody"), (KEY, IDENTITY + "x"), (KEY, IDENTITY[:-1]), (KEY, "w" * 100))
        asked = [(client, key, identity, subprocess.Popen([client, "-m", "get", "-B", "3", "-A", "50", "-u", identity, "-k", key, self.meter.url + "/power"],
                                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
                 for client in clients() for key, identity in strangers]
        for client, key, identity, p in asked:
            with self.subTest(client=client, key=key, identity=identity):
                self.assertNotIn("boot_id", p.communicate(timeout=PATIENCE)[0].decode())
        # Silence is not what everybody gets.
        self.assertIn("boot_id", self.ask("coap-client-gnutls", "/power", "-A", "50")[0].decode())

    def test_many(self):
        """32 observers over DTLS get every report; the 33rd is told that there is no place."""
        running = [subprocess.Popen(["coap-client-gnutls", "-m", "get", "-u", IDENTITY, "-k", KEY, "-A", "50", "-s", "15", self.meter.url + "/power"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(32)]
        try:
            self.meter.eventually("32 observers", lambda: any("32 observers" in line for line in self.meter.log))
            self.assertRegex(self.ask("coap-client-gnutls", "/power", "-A", "50", "-s", "1")[1], r"5\.03 .*32 observers, no place left")
            self.assertIn("boot_id", self.ask("coap-client-gnutls", "/power", "-A", "50")[0].decode())
            for p in running:
                out = p.communicate(timeout=PATIENCE)[0].decode()
                seqs = [int(s) for s in re.findall(r'"seq": ?(\d+)', out)]
                self.assertGreater(len(seqs), 30)
                self.assertEqual(seqs, list(range(seqs[0], seqs[0] + len(seqs))))
        finally:
            for p in running:
                p.kill()
                p.communicate()
        self.meter.eventually("all have left", lambda: any(line.endswith("; 0 observers") for line in self.meter.log[-40:]))

    def test_nothing_amplifies(self):
        """A spoofed hello draws one answer, smaller than itself; anything else that a stranger sends draws none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            mute.settimeout(PATIENCE)
            p = subprocess.Popen(["coap-client-gnutls", "-m", "get", "-B", "1", "-u", IDENTITY, "-k", KEY, f"coaps://127.0.0.1:{mute.getsockname()[1]}/power"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            hello = mute.recv(2000)
            p.kill()
            p.wait()
        for sent, answers in ((hello, 1), (b"\x40\x01\x00\x01\xb5power", 0), (b"", 0), (b"\x17" + hello[1:], 0), (os.urandom(300), 0)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.connect(("127.0.0.1", self.meter.port))
                s.send(sent)
                s.settimeout(1.5)  # longer than DTLS's first repetition
                got = []
                try:
                    while True:
                        got.append(s.recv(2000))
                except socket.timeout:
                    pass
                self.assertEqual(len(got), answers)
                self.assertLessEqual(sum(map(len, got)), len(sent))


class Feed(unittest.TestCase):
    """Inputs as records: what comes out is what went in, when both the clock and the feed have passed it."""

    def exact(self, report, channel, watts):
        """1 A at 5 V is 2,500 and 625 counts: without quantisation, energy is power times measured time."""
        c = report.channel[channel]
        self.assertEqual(c["energy"], watts * (report.t - c["unmeasured"]), f"channel {channel} in report {report.seq}")

    def test_constant(self):
        with Meter(feed=True) as m:
            m.inputs(2 * SECOND, (1, 5), (0, 5), (0, 0), (0, 0), (0, 0), (0.5, 5))
            last = None
            while r := m.report():
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - m.start
                self.assertLessEqual(r.t * 1000, now, "ahead of the clock")
                self.exact(r, 1, 5)
                self.exact(r, 2, 0)
                self.assertEqual(r.channel[6]["energy"] * 2, 5 * (r.t - r.channel[6]["unmeasured"]))
                self.assertEqual(r.seq, last.seq + 1 if last else 1)
                if last:
                    self.assertEqual(r.channel[1]["unmeasured"], last.channel[1]["unmeasured"], "time got lost on the way")
                last = r
                if r.seq == 10:
                    m.close()
            self.assertEqual(m.finish(signal=None)["late"], 0)
            # To the last sweep whose end is fed.
            self.assertEqual(last.t, 1_900_000)
            self.assertEqual(m.end["sweeps"] * 2000 + last.channel[1]["unmeasured"], 1_998_000)
            self.assertEqual((m.end["retried"], m.end["failed"], m.end["dropped"]), (0, 0, 0))

    def test_steps(self):
        """Ten bursts, placed anywhere, to within the two readings at their ends."""
        with Meter(feed=True) as m:
            m.inputs(400_000_000)
            at, on = 400_000_000, 0
            for i in range(10):
                for amperes, ns in (1, 37_123_456 + i * 1_111_111), (0, 41_765_432):
                    at += ns
                    on += ns * amperes
                    m.inputs(at, (amperes, 5))
            m.inputs(at + SECOND // 2)
            m.close()
            m.finish(signal=None)
            got = m.reports[-1].channel[1]["energy"] / 5
            self.assertAlmostEqual(got, on / 1000, delta=10 * 2 * 2000)
            self.assertGreater(got, 0)

    def test_late_feed(self):
        """A feed that comes late delays reports, and nothing is missing."""
        with Meter(feed=True) as m:
            m.inputs(600_000_000, (1, 5))
            m.wait_for(lambda r: r.t >= 500_000)
            with self.assertRaises(queue.Empty):  # the clock goes on, the feed does not
                m.lines.get(timeout=1)
            for ms in range(700, 3001, 100):
                m.inputs(ms * 1_000_000, (1, 5))
            r = m.wait_for(lambda r: r.t >= 2_900_000)
            self.exact(r, 1, 5)
            self.assertEqual(r.channel[1]["unmeasured"], m.reports[0].channel[1]["unmeasured"])
            m.close()
            end = m.finish(signal=None)
            self.assertEqual((end["late"], end["dropped"]), (0, 0))

    def test_catching_up(self):
        """A process that was stopped makes up for it."""
        with Meter(feed=True) as m:
            m.inputs(10 * SECOND, (1, 5))
            m.wait_for(lambda r: r.seq == 2)
            m.process.send_signal(signal.SIGSTOP)
            while time.clock_gettime_ns(time.CLOCK_BOOTTIME) < m.start + 4 * SECOND:
                select.select([], [], [], 0.1)  # its clock goes on, 35 reports' worth
            m.process.send_signal(signal.SIGCONT)
            r = m.wait_for(lambda r: r.t >= 4_000_000)
            self.exact(r, 1, 5)
            self.assertEqual(r.channel[1]["unmeasured"], m.reports[0].channel[1]["unmeasured"])
            self.assertEqual([x.seq for x in m.reports], list(range(1, len(m.reports) + 1)))
            end = m.finish()
            self.assertEqual((end["late"], end["dropped"]), (0, 0))

    def test_faults(self):
        """A NACK is retried; many are errors and time not measured; a chip without supply or away costs its own channels alone."""
        load = (1, 5), (0, 0), (0, 0), (1, 5)
        with Meter(feed=True) as m:
            m.inputs(SECOND, *load)
            m.fault(0, 0, 1)
            m.inputs(2 * SECOND, *load)
            m.fault(0, 0, 60)
            m.inputs(3 * SECOND, *load)
            m.fault(1, 1)
            m.inputs(4 * SECOND, *load)
            m.fault(1, 2, 500)
            m.inputs(7 * SECOND, *load)
            m.close()
            at = {}
            while r := m.report():
                self.exact(r, 1, 5)
                self.exact(r, 4, 5)
                at[r.t // 100_000 * 100_000] = r.channel
            end = m.finish(signal=None)
            unmeasured = lambda channel, a, b: at[b][channel]["unmeasured"] - at[a][channel]["unmeasured"]
            errors = lambda channel, a, b: at[b][channel]["errors"] - at[a][channel]["errors"]
            self.assertEqual((unmeasured(1, 900_000, 1_900_000), errors(1, 900_000, 1_900_000)), (0, 0))
            self.assertGreaterEqual(end["retried"], 1)
            self.assertGreater(end["failed"], 0)
            self.assertGreater(unmeasured(1, 1_900_000, 2_900_000), 4_000)
            self.assertGreater(errors(1, 1_900_000, 2_900_000), 2)
            self.assertGreater(unmeasured(4, 2_900_000, 3_900_000), 0)
            self.assertLess(unmeasured(4, 2_900_000, 3_900_000), 50_000)
            self.assertGreaterEqual(unmeasured(4, 3_900_000, 6_900_000), 490_000)
            self.assertLess(unmeasured(4, 3_900_000, 6_900_000), 2_000_000)
            self.assertEqual(unmeasured(4, 900_000, 2_900_000) + unmeasured(1, 2_900_000, 6_900_000), 0)

    def test_saturation(self):
        with Meter(feed=True) as m:
            m.inputs(SECOND, (2, 5), (-2, 5))
            m.close()
            m.finish(signal=None)
            r = m.reports[-1]
            self.assertEqual([r.channel[i]["saturated"] for i in (1, 2, 3)], [r.sweeps, r.sweeps, 0])
            self.assertLess(r.channel[2]["energy"], 0)

    def test_malformed(self):
        good = inputs(SECOND, (1, 5))
        for name, data, wanted in (
            ("no such kind", struct.pack("<II", 3, 0), "kind"), ("too long", struct.pack("<II", 1, 57) + bytes(57), "56 bytes"),
            ("too short", struct.pack("<II", 1, 8) + bytes(8), "56 bytes"), ("endless", struct.pack("<II", 1, 0xFFFFFFFF), "56 bytes"),
            ("back in time", good + inputs(SECOND - 1), "time goes back"), ("within a header", good[:5], "within a record"),
            ("within a payload", good[:40], "within a record"), ("no such chip", struct.pack("<IIBBHI", 2, 8, 2, 0, 0, 1), "no such chip"),
            ("no such fault", struct.pack("<IIBBHI", 2, 8, 0, 3, 0, 1), "no such chip or fault"), ("not zero", struct.pack("<IIBBHI", 2, 8, 0, 0, 1, 1), "no such"),
            ("text", b"GET / HTTP/1.1\r\n\r\n", "kind"),
        ):
            with self.subTest(name), Meter("--quiet", feed=True) as m:
                m.write(data)
                m.close()
                m.finish(status=2, signal=None)
                self.assertEqual(len(m.log), 1, m.log)
                self.assertIn(wanted, m.log[0])

    def test_memory_is_bounded(self):
        """A feed far ahead is kept up to 65,536 records, then the writer waits."""
        with Meter("--quiet", feed=True) as m:
            fd = m.process.stdin.fileno()
            os.set_blocking(fd, False)
            sent, until = 0, 0
            while select.select([], [fd], [], 2)[1]:
                many = b"".join(inputs((until + i + 1) * SECOND) for i in range(64))  # as much as a pipe takes in one piece
                try:
                    written = os.write(fd, many)
                except BlockingIOError:
                    continue
                # A pipe that is nearly full takes a part, and what counts is the number.
                while written % 64:
                    try:
                        written += os.write(fd, many[written : written + 64 - written % 64])
                    except BlockingIOError:
                        select.select([], [fd], [], 1)
                        break
                sent += written
                until += written // 64
                if written % 64:
                    break
            self.assertGreaterEqual(sent // 64, 65536)
            self.assertLess(sent // 64, 65536 + 2 * 65536 // 64 + 10)
            self.assertEqual(m.finish()["dropped"], 0)

    def test_ends_in_order(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with Meter(feed=True) as m:  # which waits for its first record
                m.finish(signal=number)
                self.assertEqual(m.end["sweeps"], 0)
        with Meter(feed=True) as m:
            m.close()
            m.finish(signal=None)
        with Meter("--load=1=5@5") as m:
            m.wait_for(lambda r: r.seq == 2)
            m.finish()
            self.assertEqual(m.reports[-1].sweeps // 50, m.end["sweeps"] // 50)


class Process(unittest.TestCase):
    def run_meter(self, *arguments):
        r = subprocess.run([METER, *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        return r.returncode, r.stdout.decode(), r.stderr.decode()

    def test_wrong_usage(self):
        with open(os.path.join(self.folder, "s"), "w") as f:
            f.write("identity wattlet\nkey 00112233445566778899aabbccddeeff\n")
        with open(os.path.join(self.folder, "bad"), "w") as f:
            f.write("# a remark\nidentity wattlet\nchannel 7 shunt 1\n")
        with open(os.path.join(self.folder, "command"), "w") as f:
            f.write("reboot\n")
        with open(os.path.join(self.folder, "keyless"), "w") as f:
            f.write("identity wattlet\n")
        s = "--settings=" + os.path.join(self.folder, "s")
        for arguments, status, wanted in (
            ([], 2, "no settings"), (["--settings=/nowhere/at/all"], 2, "No such file"), ([s, "--nope"], 2, "--nope is no flag"),
            ([s, "more"], 2, "more is no flag"), ([s, "--load=7=1@5"], 2, "--load=7=1@5"), ([s, "--load=1=1"], 2, "WATTS@VOLTS"),
            ([s, "--noise=x"], 2, "--noise=x"), ([s, "--clock-drift=1e9"], 2, "--clock-drift"), ([s, "--listen=here"], 2, "ADDRESS:PORT"),
            ([s, "--listen=here:0"], 1, "here is no IPv4 or IPv6 address"), ([s, "--listen=192.0.2.1:0"], 1, "cannot listen on 192.0.2.1"),
            ([s, "--plain", "--listen=0.0.0.0:0"], 1, "loopback only"), ([s, "--plain", "--listen=:0"], 1, "loopback only"),
            ([s, "--feed", "--load=1=1@5"], 2, "exclude"), ([s, "--totals=/nowhere/t"], 2, "totals"),
            (["--settings=" + os.path.join(self.folder, "bad")], 2, "bad:3: "), (["--settings=" + os.path.join(self.folder, "command")], 2, "command:1: "),
            (["--settings=" + os.path.join(self.folder, "keyless")], 1, "no key"),
        ):
            with self.subTest(arguments):
                got, out, log = self.run_meter(*arguments)
                self.assertEqual((got, out), (status, ""), log)
                self.assertIn(wanted, log.splitlines()[0])
        status, out, _ = self.run_meter("--help")
        self.assertEqual(status, 0)
        self.assertIn("--bus-overhead", out)

    def setUp(self):
        self.holder = tempfile.TemporaryDirectory()
        self.folder = self.holder.name

    def tearDown(self):
        self.holder.cleanup()

    def test_totals(self):
        """Totals over all boots are kept at an end in order, every 10 s, and survive a record that is broken."""
        path = os.path.join(self.folder, "totals")

        def earlier(m):
            with Client(m.port) as c:
                m.wait_for(lambda r: r.seq >= 1)
                channels = json.loads(c.get("meter", options=[(ACCEPT, JSON)]).payload + c.get("meter", options=[(ACCEPT, JSON), (BLOCK2, 1 << 4 | 6)]).payload)["channels"]
                return int(channels[0].get("earlier_energy_uj", 0)), int(channels[0].get("earlier_charge_uc", 0))

        totals = [0]
        for boot in range(3):
            with Meter("--plain", "--load=1=5@5", "--totals=" + path) as m:
                self.assertEqual(earlier(m), (totals[-1], totals[-1] // 5))
                m.wait_for(lambda r: r.seq >= 3)
                m.finish()
                totals.append(totals[-1] + m.reports[-1].channel[1]["energy"])
        # The third record is in the second place. If it is broken, the one before counts.
        with open(path, "r+b") as f:
            self.assertEqual(len(f.read()), 256)
            f.seek(128 + 20)
            f.write(b"\xff\xff")
        total = totals[2]
        with Meter("--plain", "--load=1=5@5", "--totals=" + path) as m:  # killed after 10 s, in which it kept them once
            kept = m.wait_for(lambda r: r.t >= 10_000_000).channel[1]["energy"]
            m.wait_for(lambda r: r.t >= 10_200_000)
            m.process.kill()
        with Meter("--plain", "--load=1=5@5", "--totals=" + path) as m:
            self.assertEqual(earlier(m)[0], total + kept)
            m.finish()

    def test_identity_stays(self):
        seen = []
        for _ in range(2):
            with Meter("--plain") as m, Client(m.port) as c:
                m.wait_for(lambda r: r.seq >= 1)
                text = decode("Identity", c.get("meter").payload)
                seen.append((field(text, "serial"), field(text, "boot_id")))
                m.finish()
        self.assertEqual(seen[0][0], seen[1][0])
        self.assertNotEqual(seen[0][1], seen[1][1])

    def test_clock_drift(self):
        with Meter("--plain", "--clock-drift=5000", "--load=1=5@5") as m, Client(m.port) as c:
            r = m.wait_for(lambda r: r.seq >= 20)
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - m.start
            t = int(field(decode("Time", c.get("time").payload), "received_us"))
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - m.start
            self.assertLessEqual(int(before * 1.005) // 1000 - 1, t)
            self.assertLessEqual(t, int(after * 1.005) // 1000 + 1)
            self.assertEqual(r.channel[1]["energy"], 5 * (r.t - r.channel[1]["unmeasured"]))
            m.finish()

    def test_seed(self):
        """The same seed, the same noise; another, another."""
        def energies(seed):
            with Meter("--noise=50", "--load=1=0.5@5", f"--seed={seed}") as m:
                m.wait_for(lambda r: r.seq >= 5)
                m.finish()
                return [r.channel[1]["energy"] for r in m.reports[:5]]
        self.assertEqual(energies(7), energies(7))
        self.assertNotEqual(energies(7), energies(8))

    def test_slow_bus(self):
        """A bus too slow for all registers within a sweep: bus voltages in rotation, and no time unmeasured for it."""
        with Meter("--bus-overhead=150", "--load=1=5@5") as m:
            m.wait_for(lambda r: r.t >= 1_500_000)
            end = m.finish()
            a, b = m.reports[5].channel[1], m.reports[-1].channel[1]
            self.assertEqual(a["unmeasured"], b["unmeasured"])
            self.assertEqual(b["energy"] - a["energy"], 5 * (m.reports[-1].t - m.reports[5].t))
            self.assertEqual(end["failed"], 0)

    def test_reader_that_goes_away(self):
        """Whoever reads the reports may go; the process then ends in order."""
        path = os.path.join(self.folder, "s")
        with open(path, "w") as f:
            f.write("identity wattlet\nkey 00112233445566778899aabbccddeeff\n")
        p = subprocess.Popen([METER, "--settings=" + path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        p.stdout.readline()
        p.stdout.close()
        self.assertEqual(p.wait(PATIENCE), 0, p.stderr.read())
        p.stderr.close()


class Allocations(unittest.TestCase):
    """After the start nothing of ours allocates, and the thread of sampling does not at all."""

    def test_none(self):
        bare, count = os.environ["METER_BARE"], os.environ["MALLOC_COUNT"]
        with Meter(program=bare, feed=True, environment={"LD_PRELOAD": count}) as m:
            m.inputs(60 * SECOND, (1, 5), (0.3, 5))
            m.wait_for(lambda r: r.seq == 1)
            m.fault(0, 0, 3)
            ask = ["coap-client-openssl", "-m", "get", "-u", IDENTITY, "-k", KEY]
            for path in "/meter", "/samples?from=1", "/time", "/nope":
                subprocess.run([*ask, "-A", "50", m.url + path], capture_output=True, timeout=PATIENCE, check=True)
            out = subprocess.run([*ask, "-A", "50", "-s", "3", m.url + "/power"], capture_output=True, timeout=PATIENCE, check=True).stdout
            self.assertGreater(out.count(b"boot_id"), 10)
            m.finish()
            got = [line for line in m.log if line.startswith("allocations ")]
            self.assertEqual(len(got), 1, m.log)
            counts = {k: int(v) for k, v in (w.split("=") for w in got[0].split()[1:])}
            print(got[0])
            self.assertGreater(counts["ours_before"], 0, "nothing is counted")
            self.assertGreater(counts["libraries_after"], 0, "nothing is counted")
            self.assertEqual((counts["ours_after"], counts["threads"]), (0, 0))


if __name__ == "__main__":
    unittest.main(verbosity=2)
