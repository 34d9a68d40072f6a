"""As much of CoAP (RFC 7252) and of a running meter as the tests need."""

import os
import queue
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

PATIENCE = 60  # seconds: how long something may take on a machine that is busy
KEY = "secret of the bench"
IDENTITY = "wattlet"

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE, FETCH, PATCH, IPATCH = range(1, 8)
ETAG, OBSERVE, URI_PATH, CONTENT_FORMAT, MAX_AGE, URI_QUERY, ACCEPT, BLOCK2 = 4, 6, 11, 12, 14, 15, 17, 23
PROTOBUF, JSON, LINKS = 42, 50, 40


def uint(n):
    return n.to_bytes((n.bit_length() + 7) // 8, "big")


class Message:
    def __init__(self, data):
        first, self.code, self.mid = struct.unpack_from("!BBH", data)
        assert first >> 6 == 1, "version of CoAP"
        self.type = first >> 4 & 3
        at = 4 + (first & 15)
        self.token = data[4:at]
        self.options, number = [], 0
        while at < len(data) and data[at] != 0xFF:
            delta, length = data[at] >> 4, data[at] & 15
            at += 1
            extended = []
            for v in delta, length:
                if v == 13:
                    v, at = 13 + data[at], at + 1
                elif v == 14:
                    v, at = 269 + int.from_bytes(data[at : at + 2], "big"), at + 2
                extended.append(v)
            number += extended[0]
            self.options.append((number, data[at : at + extended[1]]))
            at += extended[1]
        self.payload = data[at + 1 :]

    def option(self, number):
        """The value of an option as a number, None if it is not there."""
        values = [v for n, v in self.options if n == number]
        assert len(values) <= 1, f"option {number} comes {len(values)} times"
        return int.from_bytes(values[0], "big") if values else None

    @property
    def status(self):
        return f"{self.code >> 5}.{self.code & 31:02d}"


class Client:
    """A peer of a meter without DTLS."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.mid = int.from_bytes(os.urandom(2), "big")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, path="", code=GET, type=CON, token=b"", options=(), payload=b""):
        """Sends a request. path may have queries. Returns its message id."""
        path, _, query = path.partition("?")
        all = [(URI_PATH, p.encode()) for p in path.split("/") if p]
        all += [(URI_QUERY, q.encode()) for q in query.split("&") if q]
        all += [(n, v if isinstance(v, bytes) else uint(v)) for n, v in options]
        self.mid = (self.mid + 1) & 0xFFFF
        out = struct.pack("!BBH", 1 << 6 | type << 4 | len(token), code, self.mid) + token
        last = 0
        for number, value in sorted(all, key=lambda o: o[0]):
            head, tail = 0, b""
            for shift, v in (4, number - last), (0, len(value)):
                if v >= 269:
                    head, tail = head | 14 << shift, tail + struct.pack("!H", v - 269)
                elif v >= 13:
                    head, tail = head | 13 << shift, tail + bytes([v - 13])
                else:
                    head |= v << shift
            out += bytes([head]) + tail + value
            last = number
        self.socket.send(out + (b"\xff" + payload if payload else b""))
        return self.mid

    def receive(self, timeout=PATIENCE):
        """The next message, None if none comes in time."""
        self.socket.settimeout(timeout)
        try:
            return Message(self.socket.recv(2000))
        except socket.timeout:
            return None

    def get(self, path, **how):
        """A request and its answer; notifications in between are passed over."""
        token = how.pop("token", os.urandom(4))
        mid = self.send(path, token=token, **how)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            m = self.receive()
            if m and m.token == token and (m.type != ACK or m.mid == mid):
                return m
        raise AssertionError(f"no answer to {path}")

    def empty(self, type, mid):
        self.socket.send(struct.pack("!BBH", 1 << 6 | type << 4, 0, mid))


class Report:
    """A line that the meter prints of a report."""

    def __init__(self, line):
        words = line.split()
        fields = dict(w.split("=") for w in words if "=" in w)
        self.seq, self.t, self.sweeps = int(fields["seq"]), int(fields["t"]), int(fields["sweeps"])
        self.channel = {}
        for w in words:
            if ":" in w:
                number, figures = w.split(":")
                self.channel[int(number)] = dict(zip(("energy", "charge", "unmeasured", "saturated", "errors"), map(int, figures.split(","))))


class Meter:
    """A running meter."""

    def __init__(self, *arguments, settings=(), program=None, feed=False, environment=None):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "settings")
        with open(path, "w") as f:
            f.write("\n".join(["name bench-1", "identity " + IDENTITY, "key " + KEY.encode().hex(), *settings, ""]))
        self.feeding = feed
        self.process = subprocess.Popen(
            [program or os.environ["METER"], "--settings=" + path, *arguments, *(["--feed"] if feed else [])],
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False,
            env={**os.environ, **(environment or {})})
        self.lines, self.log, self.reports, self.end = queue.Queue(), [], [], None
        self.readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._read_log, daemon=True)]
        for r in self.readers:
            r.start()
        line = self.lines.get(timeout=PATIENCE)
        m = re.fullmatch(r"ready port=(\d+) boot=([0-9a-f]{8}) start=(\d+)", line or "")
        assert m, f"not ready: {line!r}, {self.process.wait(PATIENCE)}, {self.log}"
        self.port, self.boot, self.start = int(m[1]), int(m[2], 16), int(m[3])
        self.url = f"coaps://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for r in self.readers:
            r.join()
        for f in self.process.stdin, self.process.stdout, self.process.stderr:
            if f:
                try:
                    f.close()
                except BrokenPipeError:
                    pass
        self.folder.cleanup()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode().rstrip("\n"))
        self.lines.put(None)

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.decode().rstrip("\n"))

    def report(self, timeout=PATIENCE):
        """The next report printed, None at the end."""
        line = self.lines.get(timeout=timeout)
        if line is None:
            self.lines.put(None)
            return None
        if line.startswith("end "):
            self.end = {k: int(v) for k, v in (w.split("=") for w in line.split()[1:])}
            return self.report()
        self.reports.append(Report(line))
        return self.reports[-1]

    def wait_for(self, condition):
        """Takes reports until condition is true of one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            r = self.report()
            assert r, f"the meter has ended: {self.log}"
            if condition(r):
                return r
        raise AssertionError("not within patience")

    def finish(self, status=0, signal=signal.SIGTERM):
        """Ends the meter and takes what it still prints. With a feed it has been ended by closing that."""
        if signal:
            self.process.send_signal(signal)
        while self.report():
            pass
        got = self.process.wait(PATIENCE)
        for r in self.readers:
            r.join()
        assert got == status, f"exit status {got}, not {status}: {self.log}"
        bad = [line for line in self.log if "ERROR:" in line or "runtime error" in line]
        assert not bad, "\n".join(self.log)
        return self.end

    def eventually(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"not {what}: {self.log}"
            try:
                self.report(timeout=0.1)
            except queue.Empty:
                pass

    # The feed.

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def inputs(self, until_ns, *channels):
        """Inputs up to a time: for each channel from 1, amperes at 0.1 ohm and volts; the rest have nothing."""
        self.write(inputs(until_ns, *channels))

    def fault(self, chip, what, count=0):
        self.write(struct.pack("<IIBBHI", 2, 8, chip, what, 0, count))

    def close(self):
        self.process.stdin.close()


def inputs(until_ns, *channels):
    values = []
    for amperes, volts in (*channels, *[(0, 0)] * (6 - len(channels))):
        values += [round(amperes * 100_000_000), round(volts * 1_000_000)]
    return struct.pack("<IIQ12i", 1, 56, until_ns, *values)
