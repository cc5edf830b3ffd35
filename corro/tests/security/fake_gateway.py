#!/usr/bin/env python3
"""A db-process that is started against false gateways: none learns the secret or gets a WebSocket, and the
process joins the real one when it can.

    corro/tests/security/fake_gateway.py      needs a built corro
"""

import base64
import secrets
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from inner import Ring, check, eventually, text

SECRET = secrets.token_hex(32)


class Fake:
    """A server that keeps all that it is sent, and answers what `answer` makes of a request's headers."""

    def __init__(self, answer):
        self.answer, self.received, self.heads = answer, b"", []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        head = b""
        with connection:
            connection.settimeout(10)
            try:
                while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                    head += more
                self.received += head
                lines = head.decode(errors="replace").split("\r\n")
                self.heads.append(lines[0])
                headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
                connection.sendall(self.answer({name.lower(): value for name, value in headers.items()}))
                while more := connection.recv(4096):
                    self.received += more
            except OSError:
                pass

    def close(self):
        self.server.close()


def response(status, headers):
    return (f"HTTP/1.1 {status}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n").encode()


def posing(proof, **changed):
    """Answers as a gateway would, with that proof."""
    known = {"corro-role": "gateway", "corro-name": "gateway", "corro-challenge": text(bytes(56))}
    return lambda headers: response("204 No Content", known | {"corro-proof": proof(headers)} | changed)


FAKES = {
    "one that knows no proof": lambda _: response("204 No Content", {}),
    "one that guesses": posing(lambda _: text(secrets.token_bytes(32))),
    "one that sends back what it gets": posing(lambda headers: headers.get("corro-nonce", "")),
    "one that upgrades at once": lambda _: response(
        "101 Switching Protocols", {"Upgrade": "websocket", "Connection": "Upgrade"}
    ),
    "one that points elsewhere": lambda _: response("302 Found", {"Location": "http://127.0.0.1:9/"}),
    "a web server": lambda _: response("404 Not Found", {"Content-Length": "0"}),
    "one that answers anything": lambda _: b"\x00" * 4096,
}


def main():
    raw = bytes.fromhex(SECRET)
    forms = [SECRET.encode(), SECRET.upper().encode(), raw]
    forms += [base64.b64encode(SECRET.encode()), base64.b64encode(raw)]
    for what, answer in FAKES.items():
        print(f"{what}:")
        fake = Fake(answer)
        with Ring(SECRET) as ring:
            ring.start_process(0, fake.port)
            eventually("three attempts", lambda: len(fake.heads) >= 3)
            asked = all(head.startswith("GET /challenge ") for head in fake.heads)
            check(asked, "it is asked for a proof only")
            check(b"corro-proof" not in fake.received, "it gets no proof")
            check(not any(form.strip(b"=") in fake.received for form in forms), "it gets no secret")
            eventually("a line of the log", lambda: "no gateway yet" in ring.output("db-0"))
            check(SECRET not in ring.output("db-0"), "nor does the log")
            ring.stop("db-0")
            # The same folder joins the real one.
            ring.start_gateway(1)
            ring.start_process(0)
            ring.until_ready()
            check(True, "the process joins the real gateway afterwards")
        fake.close()


main()
