#!/usr/bin/env python3
"""Corro beside Redis with webdis and beside etcd, in one run on this machine.

    apt-get install wrk redis-server webdis etcd-server
    resources/bench/peers.py target/release/corro

Each is what one would take for users over HTTP that survive a loss of power: Redis with
`appendfsync always` behind webdis, etcd with three nodes by its JSON gateway, and a ring of three. All
keep the same users of 120 bytes; all are asked by the same wrk with keep-alive connections. Rounds
alternate, so that what the machine does meanwhile befalls all of them; medians are printed. The ceiling
is what `corro bench` measures a ring against. What they promise differs: webdis has one copy and checks
nothing, etcd writes to a majority before it answers and reads through its leader.

Everything is started here on free ports of this machine, with its data in a temporary folder, and is
ended here.
"""

import argparse
import base64
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def user(number):
    """As the script of wrk makes it."""
    ident = f"00000000-0000-4000-8000-{number:012x}"
    return ident, {
        "id": ident,
        "name": f"Ada Lovelace {number % 1_000_000:06}",
        "email": f"u{number % 100_000_000:08}@example.org",
        "group": 10_000,
    }


def compact(value):
    return json.dumps(value, separators=(",", ":"))


class Peer:
    """A store: its processes, and the port of its HTTP."""

    def __init__(self, folder):
        self.folder = folder / type(self).__name__.lower()
        self.folder.mkdir()
        self.port = free_port()
        self.children = []

    def start(self, *command, env=None):
        log = open(self.folder / f"{len(self.children)}.log", "wb")
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=self.folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=env,
        )
        self.children.append(child)

    def stop(self):
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()

    def until(self, path, body=None):
        """Waits until it answers 200."""
        deadline = time.monotonic() + 60
        while True:
            try:
                url = f"http://127.0.0.1:{self.port}{path}"
                with urllib.request.urlopen(url, data=body, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                sys.exit(f"{type(self).__name__} is not ready; its logs are in {self.folder}")
            time.sleep(0.05)

    def send(self, requests):
        connection = HTTPConnection("127.0.0.1", self.port)
        for method, path, body in requests:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 300:
                sys.exit(f"{type(self).__name__} answers {answer.status} to {method} {path}")
        connection.close()


class Corro(Peer):
    name = speaks = "corro"
    promise = "3 partitions, 2 copies each, fsync before the answer"

    def begin(self, options):
        self.start(
            options.corro,
            "demo",
            f"--rest-port={self.port}",
            "--socket-port=0",
            "--db-processes=3",
            f"--folder={self.folder / 'ring'}",
            env=os.environ | {"NODE_ENV": "production"},
        )
        self.until("/health/ready")
        self.send(("POST", "/api/user/", compact(user(number)[1])) for number in range(options.users))


class Ceiling(Peer):
    """What no ring can pass: the HTTP side of one, over a map in memory."""

    name = "ceiling"
    speaks = "corro"
    promise = "axum and a map in memory, nothing on disk"

    def begin(self, options):
        self.start(options.corro, "bench-ceiling")
        log = self.folder / "0.log"
        deadline = time.monotonic() + 10
        while not (port := re.match(r"\d+\n", log.read_text())):
            if time.monotonic() > deadline:
                sys.exit(f"the ceiling does not start; its log is {log}")
            time.sleep(0.05)
        self.port = int(port[0])
        self.send(("POST", "/api/user/", compact(user(number)[1])) for number in range(options.users))


class Webdis(Peer):
    name = speaks = "webdis"
    promise = "Redis, 1 copy, appendfsync always"

    def begin(self, options):
        redis = free_port()
        self.start(
            "redis-server",
            "--port",
            redis,
            "--bind",
            "127.0.0.1",
            "--dir",
            self.folder,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        )
        config = {
            "redis_host": "127.0.0.1",
            "redis_port": redis,
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "threads": options.webdis_threads,
            "pool_size": 10,
            "daemonize": False,
            "websockets": False,
            "verbosity": 0,
            "logfile": str(self.folder / "webdis.log"),
            "acl": [{"disabled": []}],
        }
        (self.folder / "webdis.json").write_text(json.dumps(config))
        self.start("webdis", self.folder / "webdis.json")
        self.until("/PING")
        users = map(user, range(options.users))
        self.send(("PUT", f"/SET/{ident}", compact(value)) for ident, value in users)


class Etcd(Peer):
    name = speaks = "etcd"
    promise = "3 nodes, a majority has it on disk"

    def begin(self, options):
        peers = [free_port() for _ in range(3)]
        clients = [self.port, free_port(), free_port()]
        cluster = ",".join(f"n{place}=http://127.0.0.1:{port}" for place, port in enumerate(peers))
        for place, (peer, client) in enumerate(zip(peers, clients)):
            self.start(
                "etcd",
                f"--name=n{place}",
                f"--data-dir={self.folder / f'n{place}'}",
                "--logger=zap",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--initial-cluster={cluster}",
                "--log-level=error",
            )
        encode = lambda text: base64.b64encode(text.encode()).decode()
        self.until("/v3/kv/range", compact({"key": encode("x")}).encode())

        def transactions():
            for first in range(0, options.users, 100):
                pairs = [user(number) for number in range(first, min(first + 100, options.users))]
                puts = [
                    {"requestPut": {"key": encode(i), "value": encode(compact(value))}} for i, value in pairs
                ]
                yield "POST", "/v3/kv/txn", compact({"success": puts})

        self.send(transactions())


def wrk(peer, operation, options, seed):
    """Requests a second, and the 99th percentile in milliseconds."""
    command = [
        "wrk",
        "--latency",
        "-t1",
        f"-c{options.connections}",
        f"-d{options.seconds}s",
        "-s",
        HERE / "peers.lua",
        f"http://127.0.0.1:{peer.port}",
        "--",
        peer.speaks,
        operation,
        options.users,
        seed,
    ]
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", said)
    if bad and not re.fullmatch(r"connect 0, read 0, write 0, timeout 0", bad[2] or ""):
        sys.exit(f"{peer.name}, {operation}: {bad[0]}")
    speed = float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])
    number, unit = re.search(r"99%\s*([\d.]+)(us|ms|s)", said).groups()
    return speed, float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corro", type=lambda path: Path(path).resolve(), help="the executable")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--webdis-threads", type=int, default=2)
    parser.add_argument(
        "--peers", default="corro,webdis,etcd,ceiling", help="which of them, separated by commas"
    )
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="corro-peers-") as folder:
        wanted = options.peers.split(",")
        peers = [kind(Path(folder)) for kind in (Corro, Webdis, Etcd, Ceiling) if kind.name in wanted]
        try:
            for peer in peers:
                peer.begin(options)
            figures = {}
            for seed in range(options.rounds):
                for operation in ("read", "write"):
                    for peer in peers:
                        figures.setdefault((operation, peer.name), []).append(
                            wrk(peer, operation, options, seed)
                        )
        finally:
            for peer in peers:
                peer.stop()

    first = peers[0].name
    print(
        f"{options.connections} connections, medians of {options.rounds} rounds of {options.seconds} s, "
        f"{options.users} users"
    )
    for operation in ("read", "write"):
        base = [speed for speed, _ in figures[operation, first]]
        for peer in peers:
            speeds, p99 = zip(*figures[operation, peer.name])
            ratio = statistics.median(one / other for one, other in zip(base, speeds))
            versus = "" if peer.name == first else f"{first} is {ratio:.2f} times as fast"
            print(
                f"{operation:<6}{peer.name:<8}{statistics.median(speeds):>9.0f}/s"
                f"  p99 {statistics.median(p99):>7.2f} ms"
                f"  {versus:<32}{peer.promise}"
            )


if __name__ == "__main__":
    main()
