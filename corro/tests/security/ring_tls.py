#!/usr/bin/env python3
"""A ring whose processes show certificates to each other: of what goes over its inner ports nothing is
readable, and who has no certificate of its CA, or one of another process, gets nothing, with the secret too.

    corro/tests/security/ring_tls.py           needs a built corro
"""

import secrets
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

import inner
from inner import CORRO, Ring, check, eventually, free_port
from wire import Wire, forms

SECRET = secrets.token_hex(32)


def certify(certs, names):
    subprocess.run([CORRO, "certs", "init", certs], check=True, stdout=subprocess.DEVNULL)
    for name in names:
        command = [CORRO, "certs", "issue", certs, name, "--host=127.0.0.1"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def files(certs, name):
    paths = {"CERT": f"{name}.crt", "KEY": f"{name}.key", "CA": "ca.crt"}
    return {f"RING_{what}_FILE": str(certs / path) for what, path in paths.items()}


class Secure:
    """Connections of a stranger with TLS, in place of those without."""

    def __init__(self, certs, name=None):
        self.context = ssl.create_default_context(cafile=certs / "ca.crt")
        if name:
            self.context.load_cert_chain(certs / f"{name}.crt", certs / f"{name}.key")

    def connect(self, port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=15)
        return self.context.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, port, path, headers):
        """The head of the answer, as bytes; nothing where there is none."""
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            with self.connect(port) as stream:
                stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
                answer = b""
                while b"\r\n\r\n" not in answer and (more := stream.recv(4096)):
                    answer += more
                return answer
        except OSError:
            return b""

    def prove(self, port, name, link):
        """The headers with which a WebSocket is opened by who knows the secret."""
        sent = {"corro-role": link[1], "corro-name": name, "corro-nonce": inner.text(secrets.token_bytes(32))}
        answer = self.ask(port, "/challenge", sent).decode()
        if not answer:
            return None
        lines = [line.split(": ", 1) for line in answer.split("\r\n")[1:] if ": " in line]
        given = {key.lower(): value for key, value in lines}
        parts = inner.data(sent["corro-nonce"]), inner.data(given["corro-challenge"])
        own = inner.text(inner.proof(SECRET, "client", link, given["corro-name"], name, *parts))
        opening = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        opening["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
        return sent | opening | {"corro-challenge": given["corro-challenge"], "corro-proof": own}

    def status(self, port, name, link):
        """Of opening a WebSocket as that process; 0 where there is no answer at all."""
        headers = self.prove(port, name, link)
        if headers is None:
            return 0
        answer = self.ask(port, "/socket.io/?EIO=4&transport=websocket", headers)
        return int(answer.split(b" ")[1]) if answer else 0


def fake_gateway(certs):
    """A port with the certificate of another process, and the heads that it is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "db-9.crt", certs / "db-9.key")
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            plain, _ = server.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    asked.append(stream.recv(8192))
                    head = b"HTTP/1.1 204 No Content\r\ncorro-role: gateway\r\ncorro-name: gateway\r\n\r\n"
                    stream.sendall(head)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], asked


def main():
    with Ring(SECRET) as ring:
        certs, others = ring.path / "certs", ring.path / "others"
        certify(certs, ["gateway", "db-0", "db-1", "db-2", "db-9"])
        certify(others, ["db-0"])
        ring.start_gateway(3, **files(certs, "gateway"))
        wires = {"SOCKET_PORT": Wire(ring.ports["socket"])}
        ports = [free_port() for _ in range(3)]

        def start(place, **environment):
            wire = wires[f"REPLICATION_PORT of db-{place}"]
            url = f"wss://127.0.0.1:{wires['SOCKET_PORT'].port}"
            usual = {
                "REPLICATION_PORT": str(ports[place]),
                "REPLICATION_ADDRESS": f"127.0.0.1:{wire.port}",
                "SOCKET_SERVER_URL": url,
                "DATA_DIR": str(ring.path / f"db-{place}"),
                "DB_INSTANCE_ID": f"db-{place}",
            }
            settings = usual | files(certs, f"db-{place}") | environment
            ring.start(f"db-{place}", "db-process", **settings)

        for place in range(3):
            wires[f"REPLICATION_PORT of db-{place}"] = Wire(ports[place])
            start(place)
        ring.until_ready()

        def write(number):
            user = {"name": f"marked-{number}", "email": f"{number}@example.org"}
            status = ring.api("POST", "/api/user", user)[0]
            assert status == 201, status

        for number in range(100):
            write(number)
        ring.stop("db-1")
        for number in range(100, 200):
            write(number)
        start(1)
        ring.until_ready()

        def replicated():
            partitions = ring.api("GET", "/api/cluster")[2]["partitions"]
            return all(part["waiting_for"] is None and part["unreplicated"] == 0 for part in partitions)

        eventually("everything is replicated", replicated)
        for name, wire in wires.items():
            text = wire.text()
            check(len(text) > 5_000, f"{name}: captured {len(text)} bytes")
            readable = [word for word in (b"marked-", b"corro-proof", b"socket.io", b'42["') if word in text]
            check(not readable, f"{name}: nothing of it is readable")
            check(not any(form in text for form in forms(SECRET)), f"{name}: no secret")

        gateway, neighbour = ring.ports["socket"], ports[2]
        none, other = Secure(certs), Secure(certs, "db-9")
        strange = Secure(others, "db-0")
        strange.context.load_verify_locations(certs / "ca.crt")
        for port, link in ((gateway, inner.MEMBER), (neighbour, inner.FOLLOWER)):
            what = link[0]
            check(none.status(port, "db-0", link) == 0, f"{what}: nothing without a certificate")
            check(strange.status(port, "db-0", link) == 0, f"{what}: nothing with one of another CA")
            check(other.status(port, "db-0", link) == 401, f"{what}: 401 with that of another process")
            own = Secure(certs, "db-0")
            check(own.status(port, "db-0", link) == 101, f"{what}: 101 with that of the process itself")
        health = ["db-process", "--healthcheck=ready"]
        own = {"CLUSTER_SECRET": SECRET, "REPLICATION_PORT": str(neighbour), "DB_INSTANCE_ID": "db-2"}
        asked = subprocess.run(
            [CORRO, *health], env=own | files(certs, "db-2"), capture_output=True, text=True, timeout=60
        )
        check(asked.returncode == 0, f"the health check: {asked.stderr or 'well'}")

        # A false gateway has the secret, and a certificate of another process.
        ring.stop("gateway")
        ring.stop("db-0")
        started = subprocess.run(
            [CORRO, "gateway"],
            env={"CLUSTER_SECRET": SECRET, "LOG_DIR": str(ring.path / "x")} | files(certs, "db-9"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        check(started.returncode == 2 and "lacks the name" in started.stderr, "no gateway with another name")
        fake, asked = fake_gateway(certs)
        start(0, SOCKET_SERVER_URL=f"wss://127.0.0.1:{fake}")
        reason = "lacks the name of the process"
        eventually("a false gateway is noticed", lambda: reason in ring.output("db-0"))
        check(asked and not any(b"corro-proof" in head for head in asked), "a false gateway gets no proof")
        ring.stop("db-0")
        start(0, **files(others, "db-0"))
        ring.start_gateway(3, **files(certs, "gateway"))
        answers = lambda: ring.api("GET", "/api/cluster")[0] == 200 and ring.process(1)["connected"]
        eventually("the gateway is back", answers)
        eventually("a process that is not trusted says so", lambda: "not trusted" in ring.output("db-0"))
        check(not ring.process(0)["connected"], "a process of another CA does not join")


main()
