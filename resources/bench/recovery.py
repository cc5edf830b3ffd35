#!/usr/bin/env python3
"""How long a process takes to be whole again, and what callers notice of it meanwhile.

    resources/bench/recovery.py target/release/corro

A ring of three with some million users. db-1 is killed and comes back with an emptied disk, so both its
copies are filled in full; then it is killed, as many users are created meanwhile, and it follows two
op-logs. Each of the two first alone, then beside `corro bench --mix get` at a steady rate, whose rounds
of a second are told apart: those before, and those meanwhile.

Everything is started here on free ports of this machine, with its data in a temporary folder, and is
ended here.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

AWAY = "db-1"
ROUND = 1.0


class Ring:
    def __init__(self, corro, folder, processes):
        self.corro, self.folder = corro, folder
        command = [
            corro,
            "demo",
            "--rest-port=0",
            "--socket-port=0",
            f"--db-processes={processes}",
            f"--folder={folder}",
        ]
        log = open(folder.with_suffix(".log"), "wb")
        self.demo = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"NODE_ENV": "production"},
        )
        self.url = None
        for line in self.demo.stdout:
            if "/api/cluster)" in line:
                self.url = line.split()[1].rstrip("/")
            if line.startswith("Ctrl-C"):
                break

    def tell(self, order):
        subprocess.run(
            [self.corro, "demo", f"--folder={self.folder}", order, AWAY], check=True, capture_output=True
        )

    def stop(self):
        self.demo.send_signal(signal.SIGTERM)
        self.demo.wait(30)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def whole(self):
        """Waits until both copies of every partition are up to date."""
        deadline = time.monotonic() + 180
        while not all(partition["both_read"] for partition in self.get("/api/cluster")["partitions"]):
            if time.monotonic() > deadline:
                raise SystemExit(f"the ring is not whole after three minutes; its logs are in {self.folder}")
            time.sleep(0.05)

    def create(self, name, users):
        """In one request. Returns the seconds that it took."""
        begun = time.monotonic()
        command = [
            "curl",
            "-sS",
            "-T",
            "-",
            "-X",
            "POST",
            "-H",
            "content-type: application/x-ndjson",
            "-o",
            os.devnull,
            "-w",
            "%{http_code}",
            self.url + "/api/user/bulk",
        ]
        curl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(users):
            curl.stdin.write(
                f'{{"op":"create","name":"Ada Lovelace {number}","email":"{name}.{number}@example.org",'
                f'"group":{number % 1000}}}\n'
            )
        said, _ = curl.communicate()
        if curl.returncode or said != "200":
            raise SystemExit(f"creating users came to {said}")
        return time.monotonic() - begun


def memory(ring):
    """The most that the processes ever had resident, in MiB, by name."""
    children = subprocess.run(
        ["pgrep", "-P", str(ring.demo.pid)], capture_output=True, text=True
    ).stdout.split()
    peaks = {}
    for child in children:
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        name = next((word.split("=")[1] for word in words if word.startswith("--db-instance-id=")), words[1])
        status = Path(f"/proc/{child}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        peaks[name] = peak // 1024
    return peaks


class Callers:
    """`corro bench` in the background."""

    def __init__(self, ring, options, rounds):
        self.json = ring.folder.with_suffix(".json")
        command = [
            ring.corro,
            "bench",
            "--url",
            ring.url,
            "--no-ceiling",
            "--mix",
            options.mix,
            "--connections",
            "64",
            "--users",
            str(options.read),
            "--rounds",
            str(rounds),
            "--seconds",
            str(ROUND),
            "--json",
            self.json,
        ]
        command += ["--rate", str(options.rate)] if options.rate else []
        self.bench = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        for line in self.bench.stdout:
            if line.startswith("load "):
                break
        self.begun = time.monotonic()

    def rounds(self):
        """Each with when it began and ended, by `time.monotonic`."""
        failed = self.bench.wait(600)
        ended = time.monotonic()
        [load] = json.loads(self.json.read_text())["loads"]
        rounds = [of_all[0] for of_all in load["rounds"]]
        length = (ended - self.begun) / len(rounds)
        if failed:
            print(f"    {load['by_side'][0]['errors']} requests failed")
        return [(self.begun + n * length, self.begun + (n + 1) * length, one) for n, one in enumerate(rounds)]


def percentiles(rounds):
    def span(name):
        values = sorted(one[name] * 1e3 for _, _, one in rounds)
        return f"{values[0]:.1f} to {values[-1]:.1f}, in the middle {statistics.median(values):.1f}"

    return f"50 % within {span('p50')} ms; 99 % within {span('p99')} ms" if rounds else "no round"


def measure(what, ring, options, records, prepare):
    for beside in (False, True):
        ring.whole()
        ring.tell("kill")
        prepare()
        callers = Callers(ring, options, options.rounds) if beside else None
        if beside:
            time.sleep(options.before)
        restarted = time.monotonic()
        ring.tell("restart")
        ring.whole()
        whole = time.monotonic()
        took = whole - restarted
        print(
            f"  {what}, {'beside callers' if beside else 'alone'}: {records():,} in {took:.1f} s, "
            f"{records() / took:,.0f}/s"
        )
        if callers:
            rounds = callers.rounds()
            print(f"    before:    {percentiles([one for one in rounds if one[1] < restarted])}")
            print(
                "    meanwhile: "
                + percentiles([one for one in rounds if one[1] > restarted and one[0] < whole])
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corro", type=lambda path: Path(path).resolve(), help="the executable")
    parser.add_argument(
        "--users", type=int, default=2_000_000, help="in the ring at first, and created while one is away"
    )
    parser.add_argument("--read", type=int, default=100_000, help="users that the callers read")
    parser.add_argument("--mix", default="get", help="as for corro bench")
    parser.add_argument(
        "--rate", type=int, default=8_000, help="requests a second; 0: as many as 64 connections can"
    )
    parser.add_argument("--rounds", type=int, default=25, help="of a second each")
    parser.add_argument(
        "--before", type=float, default=8, help="seconds of callers before the process is restarted"
    )
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--only", choices=["disk", "log"])
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="corro-recovery-"))
    ring = Ring(options.corro, folder / "ring", options.processes)
    try:
        took = ring.create("first", options.users)
        print(
            f"{options.users:,} users created in {took:.1f} s, {options.users / took:,.0f}/s; "
            f"memory at most, MiB: {memory(ring)}"
        )
        held = 2 / options.processes  # each process holds two copies

        def emptied():
            shutil.rmtree(ring.folder / "data" / AWAY)

        def created():
            ring.create(f"while-away-{time.monotonic_ns()}", options.users)

        if options.only != "log":
            measure(
                "an emptied disk, records",
                ring,
                options,
                lambda: int(ring.get("/api/user/count")["count"] * held),
                emptied,
            )
        if options.only != "disk":
            measure("two op-logs, entries", ring, options, lambda: int(options.users * held), created)
        print(f"memory at most, MiB: {memory(ring)}")
    finally:
        ring.stop()
    # Where something went wrong it stays, to be looked at.
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
