"""Ports in front of ports, which keep what goes over them."""

import base64
import socket
import threading


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
