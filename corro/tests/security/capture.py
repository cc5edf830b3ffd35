#!/usr/bin/env python3
"""Records all that goes over SOCKET_PORT and the replication ports of a ring that is written to, while a
process is stopped and started: neither the secret nor a token of the API is in it, in any usual form.

    corro/tests/security/capture.py           needs a built corro
"""

import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from inner import Ring, check, eventually, free_port
from wire import Wire, forms

SECRET, TOKEN = secrets.token_hex(32), secrets.token_hex(24)


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
