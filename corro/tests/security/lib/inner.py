"""What the scripts about the inner ports share: processes of a ring, the handshake as resources/docs say it
is done, written independently of the program, and just enough of WebSocket and socket.io.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parents[4]
CORRO = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target")) / "release/corro"
DEADLINE = 60
REVISION = 7


def eventually(what, holds):
    """Waits until something holds, and returns what it is."""
    end = time.monotonic() + DEADLINE
    while not (held := holds()):
        if time.monotonic() > end:
            sys.exit(f"FAILED: waited in vain: {what}")
        time.sleep(0.02)
    return held


def check(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"  {what}")


def free_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Ring:
    """Processes in a temporary folder; all of them end with it."""

    def __init__(self, secret, **environment):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        (self.path / "secret").write_text(secret + "\n")
        secret_file = str(self.path / "secret")
        usual = {"CLUSTER_SECRET_FILE": secret_file, "RUST_LOG": "info", "ALLOW_ANONYMOUS": "true"}
        self.environment = usual | environment
        self.children = {}
        self.ports = {"rest": free_port(), "socket": free_port()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children.values():
            child.kill()
            child.wait()
        self.folder.cleanup()

    def start(self, name, command, **environment):
        log = open(self.path / f"{name}.out", "ab")
        environment = {"LOG_DIR": str(self.path / "logs" / name)} | self.environment | environment
        self.children[name] = subprocess.Popen(
            [CORRO, command], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def start_gateway(self, size, **environment):
        ports = {"REST_PORT": str(self.ports["rest"]), "SOCKET_PORT": str(self.ports["socket"])}
        self.start("gateway", "gateway", **ports, DB_PROCESSES=str(size), **environment)

    def start_process(self, place, port=None, **environment):
        name = f"db-{place}"
        url = f"ws://127.0.0.1:{port or self.ports['socket']}"
        paths = {"DATA_DIR": str(self.path / name), "DB_INSTANCE_ID": name}
        self.start(name, "db-process", SOCKET_SERVER_URL=url, **paths, **environment)

    def stop(self, name):
        child = self.children.pop(name)
        child.terminate()
        child.wait()

    def output(self, name):
        return (self.path / f"{name}.out").read_text(errors="replace")

    def api(self, method, path, body=None, token=None):
        """Status, headers and JSON of a call; status 0 where nothing answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['rest']}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.headers, None
        except OSError:
            return 0, {}, None

    def until_ready(self):
        eventually("a ring that is ready", lambda: self.api("GET", "/health/ready")[0] == 200)

    def process(self, place, token=None):
        return self.api("GET", "/api/cluster", token=token)[2]["processes"][place]


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def data(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def proof(secret, direction, link, server, client, nonce, challenge):
    """One side's proof. `link` is the role of the server and that of the client."""
    parts = ["corro handshake 1", f"from the {direction}", *link, server, client]
    parts = [part.encode() for part in parts] + [nonce, challenge]
    message = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hmac.new(secret.encode(), message, hashlib.sha256).digest()


MEMBER, FOLLOWER = ("gateway", "member"), ("neighbour", "follower")


def challenge(port, name, link=MEMBER):
    """The first step: what the client has sent, and what the server answers."""
    sent = {"corro-role": link[1], "corro-name": name, "corro-nonce": text(secrets.token_bytes(32))}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/challenge", headers=sent)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return sent, dict(answer.headers.items())


def prove(port, secret, name, link=MEMBER):
    """The headers of the second step, and whether the server has proven itself."""
    sent, answer = challenge(port, name, link)
    given = link, answer["corro-name"], name, data(sent["corro-nonce"]), data(answer["corro-challenge"])
    trusted = hmac.compare_digest(proof(secret, "server", *given), data(answer["corro-proof"]))
    own = text(proof(secret, "client", *given))
    return sent | {"corro-challenge": answer["corro-challenge"], "corro-proof": own}, trusted


class Socket:
    """A WebSocket to socket.io, or the status with which it was refused."""

    def __init__(self, port, headers, path="/socket.io/?EIO=4&transport=websocket"):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=15)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer and (more := self.stream.recv(4096)):
            self.buffer += more
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1]) if head else 0

    def _take(self, count):
        while len(self.buffer) < count:
            more = self.stream.recv(65536)
            if not more:
                raise EOFError
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self):
        """The next text; the pings of engine.io are answered."""
        while True:
            first, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._take(8))
            payload = self._take(length)
            if first & 15 == 8:
                raise EOFError
            if first & 15 == 1 and payload != b"2":
                return payload.decode()
            if payload == b"2":
                self.send("3")

    def send(self, message):
        payload, mask = message.encode(), os.urandom(4)
        length = len(payload)
        small = length < 126
        head = struct.pack(">BB", 0x81, 0x80 | length) if small else struct.pack(">BBH", 0x81, 0xFE, length)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.stream.sendall(head + mask + masked)

    def join(self):
        check_open = self.receive()
        assert check_open.startswith("0"), check_open
        self.send("40")
        answer = self.receive()
        assert answer.startswith("40"), answer
        return self

    def emit(self, event, argument):
        self.send("42" + json.dumps([event, json.dumps(argument)]))

    def event(self, name):
        """The argument of the next event of that name."""
        while True:
            packet = self.receive()
            if packet.startswith("42"):
                event, argument = json.loads(packet[2:])
                if event == name:
                    # Messages have quotes and apostrophes in each other's place, but for those in plain JSON.
                    swap = str.maketrans("'\"", "\"'")
                    return json.loads(argument.translate(swap) if argument.startswith("{'") else argument)


def registration(name, incarnation, version=0, ring=None):
    """What a db-process of that name would register with."""
    copy = lambda: {
        "incarnation": str(uuid.uuid4()),
        "complete": False,
        "head": 0,
        "position": None,
        "version": version,
        "flushed": 0,
        "other": None,
        "rollback": None,
    }
    return {
        "revision": REVISION,
        "instance": name,
        "incarnation": incarnation,
        "ring": ring,
        "view": {"epoch": 0, "leads": []},
        "replication": {"host": None, "port": 1},
        "copies": {"primary": copy(), "replica": copy()},
    }


def register(port, secret, message, name=None):
    """Registers; returns `registered` or the reason of the refusal."""
    headers, trusted = prove(port, secret, name or message["instance"])
    assert trusted
    connection = Socket(port, headers).join()
    term = {"term": 0, "holder": None, "free": True}
    hello = {"revision": REVISION, "instance": message["instance"], "ring": None, "sole": True, "term": term}
    connection.emit("hello", hello)
    claimed = False
    while True:
        packet = connection.receive()
        if packet.startswith('42["claim"') and not claimed:
            claimed = True
            claim = json.loads(json.loads(packet[2:])[1])
            connection.emit("granted", {"term": claim["term"]})
            connection.emit("register", message)
        for event in ("registered", "refused"):
            if packet.startswith(f'42["{event}"'):
                argument = json.loads(packet[2:])[1]
                return (event, argument, connection)
