#!/usr/bin/env python3
"""Records all that goes over SOCKET_PORT and the replication ports of a ring that is written to, while a
process is stopped and started: neither the secret nor a token of the API is in it, in any usual form.

    corro/tests/security/capture.py           needs a built corro
"""

import base64
import secrets
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from inner import Ring, check, eventually, free_port

SECRET, TOKEN = secrets.token_hex(32), secrets.token_hex(24)


class Wire:
    """Passes connections on to a port, and keeps what goes over them."""

    def __init__(self, target):
        self.target, self.kept = target, []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.server.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=ends, daemon=True).start()

    def copy(self, source, target):
        direction = bytearray()
        self.kept.append(direction)
        try:
            while data := source.recv(65536):
                direction += data
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def text(self):
        """All of it, with what clients send unmasked."""
        return b"".join(bytes(direction) + unmasked(bytes(direction)) for direction in list(self.kept))


def unmasked(data):
    """The payloads of the masked WebSocket frames that follow the head of a request."""
    _, found, rest = data.partition(b"\r\n\r\n")
    out = b""
    while found and len(rest) > 6 and rest[1] & 0x80:
        length, at = rest[1] & 127, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(rest[2 : 2 + size], "big"), 2 + size
        mask, payload = rest[at : at + 4], rest[at + 4 : at + 4 + length]
        key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
        out += (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")
        rest = rest[at + 4 + length :]
    return out


def forms(secret):
    raw = bytes.fromhex(secret)
    plain = [secret.encode(), secret.upper().encode(), raw, raw[::-1], secret[::-1].encode()]
    encodings = base64.b64encode, base64.urlsafe_b64encode
    based = [encode(each) for each in (secret.encode(), raw) for encode in encodings]
    return plain + [each.rstrip(b"=") for each in based]


def main():
    with Ring(SECRET) as ring:
        ring.start_gateway(3, API_TOKEN=TOKEN)
        wires = {"SOCKET_PORT": Wire(ring.ports["socket"])}
        ports = [free_port() for _ in range(3)]

        def start(place):
            wire = wires[f"REPLICATION_PORT of db-{place}"]
            address = {"REPLICATION_PORT": str(ports[place]), "REPLICATION_ADDRESS": f"127.0.0.1:{wire.port}"}
            ring.start_process(place, wires["SOCKET_PORT"].port, **address)

        for place in range(3):
            wires[f"REPLICATION_PORT of db-{place}"] = Wire(ports[place])
            start(place)
        ring.until_ready()

        def write(number):
            user = {"name": f"marked-{number}", "email": f"{number}@example.org"}
            check_status = ring.api("POST", "/api/user", user, TOKEN)[0]
            assert check_status == 201, check_status

        for number in range(100):
            write(number)
        ring.stop("db-1")
        for number in range(100, 200):
            write(number)
        start(1)
        ring.until_ready()
        for number in range(200, 300):
            write(number)

        def replicated():
            partitions = ring.api("GET", "/api/cluster", token=TOKEN)[2]["partitions"]
            return all(part["waiting_for"] is None and part["unreplicated"] == 0 for part in partitions)

        eventually("everything is replicated", replicated)
        for name, wire in wires.items():
            text = wire.text()
            # Users are readable on the one, and packed on the others.
            users = b"marked-" if name == "SOCKET_PORT" else b'42["log"'
            check(b"corro-proof" in text and users in text, f"{name}: {len(text)} bytes with users in them")
            check(not any(form in text for form in forms(SECRET)), f"{name}: no secret")
            check(not any(form in text for form in forms(TOKEN)), f"{name}: no token")


main()
