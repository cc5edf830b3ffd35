#!/usr/bin/env python3
"""Floods by strangers: on every port of every process at once, 1,000 connections that say nothing, that begin
a head and do not end it, or a body; all of them are opened again when they are closed. The soft limit of open
files is 1,024, as it mostly is. Meanwhile a db-process is killed and comes back within 2 s, an import of
150,000 rows succeeds, the API answers, no process ends, and the flood costs no process 64 MiB.
"""

import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
from ring import CORRO, Ring, wait_for

CONNECTIONS = 1_000
ROWS = 150_000
MIB = 64
# A bound for the machine: so many connections are opened in a second.
RATE = 2_000

HEAD = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nlong: "
POST = b"POST /api/user HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = POST + b"content-length: 65000\r\n\r\n" + b" " * 64_000
CHUNKS = POST + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 9_000


class Flood(threading.Thread):
    """Keeps so many connections to a port, and sends the same on each; trickles a byte now and then."""

    def __init__(self, port, sent, trickles):
        super().__init__(daemon=True)
        self.port, self.sent, self.trickles = port, sent, trickles
        self.opened, self.running, self.open = 0, True, {}
        self.full = threading.Event()

    def run(self):
        selector, last = selectors.DefaultSelector(), time.monotonic()
        while self.running:
            for _ in range(min(CONNECTIONS - len(self.open), RATE // 100)):
                self.connect(selector)
            if len(self.open) >= CONNECTIONS * 9 // 10 or self.opened > 2 * CONNECTIONS:
                self.full.set()
            for key, _ in selector.select(0.01):
                try:
                    ended = not key.fileobj.recv(4096)
                except OSError:
                    ended = True
                if ended:
                    self.drop(selector, key.fileobj)
            if self.trickles and time.monotonic() > last + 1:
                last = time.monotonic()
                for one in list(self.open.values()):
                    try:
                        one.send(b"x")
                    except OSError:
                        pass
        for one in list(self.open.values()):
            self.drop(selector, one)

    def connect(self, selector):
        one = socket.socket()
        try:
            one.settimeout(0.2)
            one.connect(("127.0.0.1", self.port))
            one.setblocking(False)
            # What the buffers of the system do not take is left out.
            one.send(self.sent)
        except OSError:
            one.close()
            return
        self.opened += 1
        self.open[one.fileno()] = one
        selector.register(one, selectors.EVENT_READ)

    def drop(self, selector, one):
        del self.open[one.fileno()]
        selector.unregister(one)
        one.close()


def floods(ring, inner, rest, trickles):
    """A flood on every port, all of them as full as they get."""
    sent = lambda name: rest if name == "REST" else inner
    running = [Flood(port, sent(name), trickles) for name, port in ring.ports().items()]
    for flood in running:
        flood.start()
    for flood in running:
        assert flood.full.wait(60), f"the flood of port {flood.port} has {len(flood.open)} connections"
    return running


def end(running):
    for flood in running:
        flood.running = False
    for flood in running:
        flood.join()


def check_memory(ring, before, what):
    # The floods go on for a while.
    most, deadline = {}, time.monotonic() + 5
    while time.monotonic() < deadline:
        for process, held in ring.memory().items():
            most[process] = max(most.get(process, 0), held - before[process])
        status, body = ring.request("GET", "/api/user?limit=1", timeout=2)
        assert status == 200, body
    shown = ", ".join(f"{process} +{held:.0f} MiB" for process, held in most.items())
    print(f"ok    {what}: {shown}", flush=True)
    assert max(most.values()) < MIB, most


def check_member_comes_back(ring):
    ring.order("kill", "db-1")
    connected = lambda: {one["name"]: one["connected"] for one in ring.cluster()["processes"]}["db-1"]
    wait_for("the end of db-1", lambda: not connected())
    begun = time.monotonic()
    ring.order("restart", "db-1")
    wait_for("db-1", connected)
    print(f"ok    db-1 is back after {time.monotonic() - begun:.2f} s", flush=True)
    wait_for("a whole ring", lambda: ring.cluster()["ready"])


def check_import(ring):
    rows = Path(ring.folder, "rows.csv")
    with open(rows, "w") as file:
        file.write("name,email\n")
        file.writelines(f"User {n},user{n}@example.org\n" for n in range(ROWS))
    begun = time.monotonic()
    command = [CORRO, "import", rows, "--url", ring.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    status, body = ring.request("GET", "/api/user/count", timeout=30)
    assert status == 200 and str(ROWS) in body.decode(), body
    print(f"ok    an import of {ROWS} rows in {time.monotonic() - begun:.0f} s", flush=True)


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 5 * CONNECTIONS + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        print(f"This machine allows {hard} open files, and {needed} are needed.")
        return 77
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    with Ring(preexec_fn=few) as ring:
        for _ in range(100):
            ring.request("GET", "/api/user?limit=1")
        before, pids = ring.memory(), ring.pids()
        for what, inner, rest, trickles in (
            ("connections that say nothing", b"", b"", False),
            ("heads that do not end", HEAD + b"x" * 7_000, HEAD + b"x" * 15_000, True),
            ("bodies that do not end", HEAD, BODY, True),
            ("bodies in small chunks", HEAD, CHUNKS, False),
        ):
            running = floods(ring, inner, rest, trickles)
            check_memory(ring, before, what)
            end(running)
        running = floods(ring, b"", b"", False)
        check_member_comes_back(ring)
        check_import(ring)
        end(running)
        now = ring.pids()
        changed = {name for name in pids if now.get(name) != pids[name]}
        assert changed == {"db-1"}, f"{changed} are other processes than before: {ring.printed()}"
        for process in now:
            rejected = ring.log(process).count("no room for more")
            assert rejected < 20, f"{process} logged {rejected} lines about the flood"
    return 0


if __name__ == "__main__":
    sys.exit(main())
