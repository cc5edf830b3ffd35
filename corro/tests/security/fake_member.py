#!/usr/bin/env python3
"""A stranger and a member that has gone bad, at the inner ports of a running ring: without the secret nothing
is reached; with it no live name and no clock can be taken.

    corro/tests/security/fake_member.py       needs a built corro
"""

import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from inner import FOLLOWER, MEMBER, Ring, Socket, challenge, check, data, eventually, free_port, proof, prove
from inner import register, registration, text

SECRET = secrets.token_hex(32)


def stranger(port, link):
    """What can be tried without the secret."""
    status = lambda headers, *path: Socket(port, headers, *path).status
    check(status({}) == 401, "no WebSocket without a proof")
    check(status({}, "/socket.io/?EIO=4&transport=polling") == 401, "no other transport either")
    check(status({}, "/") == 404, "nothing else is served")
    sent, answer = challenge(port, "db-1", link)
    guess = {"corro-challenge": answer["corro-challenge"]}
    check(status(sent | guess | {"corro-proof": answer["corro-proof"]}) == 401, "a proof sent back is none")
    given = link, answer["corro-name"], "db-1", data(sent["corro-nonce"]), data(answer["corro-challenge"])
    wrong = text(proof("of another ring", "client", *given))
    check(status(sent | guess | {"corro-proof": wrong}) == 401, "a proof with another secret is none")


def member(port):
    """What a proof is good for."""
    headers, trusted = prove(port, SECRET, "db-1")
    check(trusted, "the gateway proves that it knows the secret")
    check(Socket(port, headers | {"corro-name": "db-2"}).status == 401, "a proof is for one name")
    check(Socket(port, headers | {"corro-role": "follower"}).status == 401, "a proof is for one role")
    check(Socket(port, headers).status == 101, "a member is let in")
    check(Socket(port, headers).status == 401, "a proof is good once")
    late, _ = prove(port, SECRET, "db-1")
    time.sleep(6)  # longer than a challenge lasts
    check(Socket(port, late).status == 401, "a proof expires")


def main():
    with Ring(SECRET) as ring:
        ring.start_gateway(3)
        port = ring.ports["socket"]
        replication = [free_port() for _ in range(3)]
        for place in range(3):
            ring.start_process(place, REPLICATION_PORT=str(replication[place]))
        ring.until_ready()
        print("a stranger at SOCKET_PORT:")
        stranger(port, MEMBER)
        print("a stranger at REPLICATION_PORT:")
        stranger(replication[1], FOLLOWER)
        print("a member:")
        member(port)

        print("a member that wants the place of another one:")
        before = ring.process(1)
        for message in (
            registration("db-1", before["incarnation"]),
            registration("db-1", "00000000-0000-0000-0000-000000000001"),
        ):
            event, argument, _ = register(port, SECRET, message)
            check(event == "refused" and "name_taken" in argument, f"a live name is refused: {argument}")
            known = [before["incarnation"], "10.0.0", "127.0.0.1"]
            check(not any(part in argument for part in known), "the refusal says nothing of the other one")
        after = ring.process(1)
        check(
            (before["incarnation"], True) == (after["incarnation"], after["connected"]), "it keeps its place"
        )

        print("a member that wants the clock:")
        ring.stop("db-1")
        eventually("the loss", lambda: not ring.process(1)["connected"])
        for version in (2**64 - 1, int((time.time() + 3600) * 1000) << 16):
            event, argument, _ = register(port, SECRET, registration("db-1", before["incarnation"], version))
            check(event == "refused" and "clock_ahead" in argument, f"version {version:x}: {argument}")
        ring.start_process(1, REPLICATION_PORT=str(replication[1]))
        ring.until_ready()
        user = {"name": "Ada", "email": "ada@example.org"}
        status, headers, _ = ring.api("POST", "/api/user", user)
        written = int(headers["ETag"].strip('"'), 16) >> 16
        check(status == 201 and abs(written - time.time() * 1000) < 60_000, "versions are those of the clock")


main()
