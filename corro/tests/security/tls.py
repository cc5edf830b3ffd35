#!/usr/bin/env python3
"""A gateway with TLS, with certificates of `corro certs`: a capture of all that goes over its port contains
no token and no user, who does not trust the CA gets nothing, the certificate is replaced under load without a
failed request, and sslscan finds nothing below TLS 1.2.

    corro/tests/security/tls.py           needs a built corro, and sslscan
"""

import http.client
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from inner import CORRO, DEADLINE, Ring, check, eventually
from wire import Wire, forms

TOKEN = secrets.token_hex(24)


def corro(*words, **environment):
    usual = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [CORRO, *words], env=usual | environment, capture_output=True, text=True, timeout=DEADLINE
    )


def issue(folder, name):
    issued = corro("certs", "issue", folder, name, "--host=localhost", "--host=127.0.0.1")
    assert issued.returncode == 0, issued.stderr


class Client:
    """One that trusts the CA."""

    def __init__(self, port, ca):
        context = ssl.create_default_context(cafile=ca)
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)

    def send(self, method, path, body=None):
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        self.connection.request(method, path, body and json.dumps(body), headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def close(self):
        self.connection.close()


def replace(certs, name, at):
    """As tools do it: each file at once, one after the other."""
    for end in ("crt", "key"):
        new = at / f"new.{end}"
        shutil.copy(certs / f"{name}.{end}", new)
        os.rename(new, at / f"used.{end}")


def shown(port):
    """The certificate that the gateway shows to a new connection."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


def under_load(port, ca, change):
    """Requests on connections that stay and on new ones, while something changes."""
    stop, done, failed = threading.Event(), [0], []

    def work(keeps):
        client = Client(port, ca)
        while not stop.is_set():
            try:
                status, _ = client.send("GET", "/api/user/count")
                assert status == 200, status
            except Exception as error:
                failed.append(repr(error))
                return
            done[0] += 1
            if not keeps:
                client.close()

    workers = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(6)]
    for worker in workers:
        worker.start()
    change()
    stop.set()
    for worker in workers:
        worker.join()
    assert not failed, failed
    return done[0]


def main():
    with Ring(secrets.token_hex(32)) as ring:
        certs = ring.path / "certs"
        made = corro("certs", "init", certs)
        assert made.returncode == 0, made.stderr
        for name in ("first", "second", "third"):
            issue(certs, name)
        ca = certs / "ca.crt"
        replace(certs, "first", ring.path)
        files = {"TLS_CERT_FILE": str(ring.path / "used.crt"), "TLS_KEY_FILE": str(ring.path / "used.key")}
        ring.start_gateway(3, API_TOKEN=TOKEN, NODE_ENV="production", REST_ADDRESS="localhost", **files)
        for place in range(3):
            ring.start_process(place)
        port = ring.ports["rest"]
        url = f"https://127.0.0.1:{port}"

        def is_ready():
            try:
                return Client(port, ca).send("GET", "/health/ready")[0] == 200
            except OSError:
                return False

        eventually("a ring that is ready", is_ready)

        wire = Wire(port)
        client = Client(wire.port, ca)
        for number in range(100):
            user = {"name": f"marked-{number}", "email": f"{number}@example.org"}
            assert client.send("POST", "/api/user", user)[0] == 201
        status, users = client.send("GET", "/api/user?limit=100")
        assert status == 200 and b"marked-" in users
        text = wire.text()
        check(len(text) > 20_000, f"captured {len(text)} bytes")
        check(not any(form in text for form in forms(TOKEN)), "no token in them")
        check(b"marked-" not in text, "no user in them")

        trusting = corro("status", "--url", url, API_TOKEN=TOKEN, CORRO_CACERT=str(ca))
        check(trusting.returncode == 0, f"corro status with the CA: {trusting.stderr or 'as usual'}")
        trusting = corro("users", "count", "--url", url, "--cacert", ca, API_TOKEN=TOKEN)
        check(trusting.stdout.strip() == "100", "corro users with the CA")
        wire = Wire(port)
        other = f"https://127.0.0.1:{wire.port}"
        strange = corro("status", "--url", other, "--patience=3", API_TOKEN=TOKEN)
        check(strange.returncode == 2 and "not trusted" in strange.stderr, "corro status without it: nothing")
        check(not any(form in wire.text() for form in forms(TOKEN)), "and it sends no token")
        health = corro("gateway", "--healthcheck", REST_PORT=str(port), **files)
        check(health.returncode == 0, f"the health check: {health.stderr or 'well'}")

        bench = ["bench", "--url", url, "--cacert", ca, "--users=100", "--seconds=0.5", "--rounds=1"]
        measured = corro(*bench, "--mix=get,post", "--connections=4", API_TOKEN=TOKEN)
        check(measured.returncode == 0, f"corro bench: {measured.stderr or 'as usual'}")

        def change():
            for name in ("second", "third", "second"):
                before = shown(port)
                replace(certs, name, ring.path)
                eventually("the new certificate", lambda: shown(port) != before)
            # Nonsense changes nothing.
            (ring.path / "used.crt").write_text("nonsense")
            eventually("a warning", lambda: "read before stays" in ring.output("gateway"))
            time.sleep(1)

        requests = under_load(port, ca, change)
        check(requests > 100, f"certificates were replaced during {requests} requests: none failed")

        if not shutil.which("sslscan"):
            sys.exit(77)
        scanned = subprocess.run(
            ["sslscan", "--no-colour", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=120
        ).stdout
        versions = dict(re.findall(r"^(SSLv2|SSLv3|TLSv1\.[0-3])\s+(enabled|disabled)", scanned, re.M))
        check(versions.get("TLSv1.2") == versions.get("TLSv1.3") == "enabled", "TLS 1.2 and 1.3")
        below = [name for name, what in versions.items() if what == "enabled"]
        check(sorted(below) == ["TLSv1.2", "TLSv1.3"] and len(versions) == 6, "nothing below them")
        check("NULL" not in scanned and "RC4" not in scanned and "3DES" not in scanned, "no weak cipher")


main()
