"""A ring of `corro demo` to be attacked: its ports, its processes, and what they use."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
CORRO = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "corro"
DEADLINE = 60


def wait_for(what, condition, within=DEADLINE):
    """Returns what the condition returns, as soon as that is something."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {within} s"
        time.sleep(0.02)


class Ring:
    """Started, and ready; `with` ends it. Its API needs no token."""

    def __init__(self, preexec_fn=None, **environment):
        self.folder = tempfile.mkdtemp(prefix="corro-security-")
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        self.out = open(f"{self.folder}/out", "wb")
        self.demo = subprocess.Popen(
            [CORRO, "demo", "--rest-port=0", "--socket-port=0", "--folder", self.folder],
            stdout=self.out,
            stderr=self.out,
            env={**inherited, "ALLOW_ANONYMOUS": "true", **environment},
            preexec_fn=preexec_fn,
        )
        try:
            wait_for("the ring", lambda: self.ended() or "  API " in self.printed())
            assert self.demo.poll() is None, self.printed()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.demo.send_signal(signal.SIGINT)
        try:
            self.demo.wait(15)
        except subprocess.TimeoutExpired:
            self.demo.kill()
        self.out.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self):
        return self.demo.poll() is not None

    def printed(self):
        return Path(self.folder, "out").read_text()

    def log(self, process):
        return Path(self.folder, "logs", f"{process}.out").read_text(errors="replace")

    def order(self, *words):
        """An order to the demo, such as `kill db-1`."""
        command = [CORRO, "demo", "--folder", self.folder, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)

    def status(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(DEADLINE)
            control.connect(f"{self.folder}/demo.sock")
            control.sendall(b'{"order":"status"}\n')
            return json.loads(control.makefile().readline())

    def pids(self):
        """Of each process that runs, by name."""
        return {one["process"]: one["pid"] for one in self.status()["processes"] if one["pid"]}

    def memory(self):
        """MiB that each process holds."""
        held = {}
        for process, pid in self.pids().items():
            status = Path(f"/proc/{pid}/status").read_text()
            held[process] = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
        return held

    @property
    def rest(self):
        return self.status()["rest_port"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.rest}"

    @property
    def socket(self):
        """The port on which db-processes connect, as the gateway logged it last."""
        return int(re.findall(r"gateway started.* socket=\S*:(\d+)", self.log("gateway"))[-1])

    def replication(self, process):
        """The port on which its neighbours follow a process."""
        return int(re.findall(r"replication_port=(\d+)", self.log(process))[-1])

    def ports(self):
        """All ports of all processes, with names that say which."""
        processes = [name for name in self.pids() if name != "gateway"]
        inner = {f"REPLICATION of {name}": self.replication(name) for name in processes}
        return {"REST": self.rest, "SOCKET": self.socket, **inner}

    def request(self, method, path, body=None, headers=None, timeout=5):
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def create(self, name, email):
        user = json.dumps({"name": name, "email": email})
        status, body = self.request("POST", "/api/user", user, {"content-type": "application/json"})
        assert status == 201, body
        return json.loads(body)

    def cluster(self):
        return json.loads(self.request("GET", "/api/cluster")[1])
