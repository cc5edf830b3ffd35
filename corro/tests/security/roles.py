#!/usr/bin/env python3
"""Tokens and roles: what a caller may do without a token, with each role, and with a token that was removed;
and that no token is in a log or on a command line. The calls are those of the OpenAPI document.

    corro/tests/security/roles.py
"""

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CORRO = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "corro"
DEADLINE = 60
ROLES = ["read", "write", "admin"]
ID = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071"


def wait_for(what, condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE} s"
        time.sleep(0.02)


def call(port, method, path, token=None):
    """The status of a call, and the type of its problem."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    # A type that no call takes: nothing is done, whatever is allowed.
    headers |= {"content-type": "text/plain"} if method in ("POST", "PUT", "PATCH") else {}
    try:
        connection.request(method, path, "{}" if method in ("POST", "PUT", "PATCH") else None, headers)
        response = connection.getresponse()
        if "event-stream" in response.getheader("content-type", ""):
            return response.status, ""
        body = response.read()
        kind = json.loads(body).get("type", "") if response.status >= 400 and body else ""
        return response.status, kind.rsplit(":", 1)[-1]
    finally:
        connection.close()


def new_token(role, file):
    printed = subprocess.run(
        [CORRO, "token", "new", role, "--file", file], check=True, capture_output=True, text=True
    ).stdout
    return re.search(r"^token  (\S+)$", printed, re.M)[1]


def check_calls(port, tokens):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/openapi.json")
    document = json.load(connection.getresponse())
    seen = 0
    for path, operations in document["paths"].items():
        target = path.replace("{id}", ID).replace("{partition}", "0")
        for method, operation in operations.items():
            method = method.upper()
            needed = operation.get("security", [{}])[0].get("token", [None])[0]
            protected = path.startswith("/api/") or path == "/metrics"
            assert protected == (needed is not None), f"{method} {path} asks for {needed}"
            for token in (None, "nonsense", tokens["read"][:-1]):
                status, kind = call(port, method, target, token)
                assert (status == 401) == protected, f"{method} {path} with {token and 'a wrong'}: {status}"
                assert not protected or kind == "unauthorized", (method, path, kind)
            for role in ROLES:
                status, kind = call(port, method, target, tokens[role])
                refused = protected and ROLES.index(role) < ROLES.index(needed)
                assert (kind == "forbidden") == refused, f"{method} {path} as {role}: {status} {kind}"
                assert status != 401, f"{method} {path} as {role}"
            seen += 1
    assert seen >= 17, seen
    print(f"ok    {seen} calls, each without a token, with wrong ones and with each role")


def check_revocation(port, file, tokens):
    assert call(port, "GET", "/api/user/count", tokens["write"])[0] == 200
    lines = Path(file).read_text().splitlines()
    Path(file).write_text("\n".join(line for line in lines if ":write:" not in line))
    wait_for("the end of a token", lambda: call(port, "GET", "/api/user/count", tokens["write"])[0] == 401)
    assert call(port, "GET", "/api/user/count", tokens["read"])[0] == 200, "the others stay"
    Path(file).write_text("nonsense")
    fresh = new_token("write", f"{file}.other")
    assert call(port, "GET", "/api/user/count", fresh)[0] == 401
    Path(file).write_text("\n".join(lines))
    wait_for("its return", lambda: call(port, "GET", "/api/user/count", tokens["write"])[0] == 200)
    print("ok    a token that is removed from the file ends, the others stay")


def check_traces(demo, folder, tokens):
    secrets = [*tokens.values(), Path(folder, "token").read_text().strip()]
    logs = [path for path in Path(folder, "logs").rglob("*") if path.is_file()]
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), f"a token is in {path}"
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    assert len(children) == 4, children
    for pid in [*children, demo.pid]:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        assert not any(secret in line for secret in secrets), f"a token is on a command line: {line}"
    for name in ("token", "auth"):
        assert Path(folder, name).stat().st_mode & 0o777 == 0o600, name
    print("ok    no token is in a log or on a command line, and files are for their owner alone")


def main():
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/tokens"
        tokens = {role: new_token(role, file) for role in ROLES}
        text = Path(file).read_text()
        assert not any(token in text for token in tokens.values()), "the file has digests alone"
        assert Path(file).stat().st_mode & 0o777 == 0o600
        inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        ring = f"{folder}/ring"
        with open(f"{folder}/out", "wb") as out:
            demo = subprocess.Popen(
                [CORRO, "demo", "--rest-port=0", "--socket-port=0", "--folder", ring],
                stdout=out,
                stderr=out,
                env={**inherited, "API_TOKENS_FILE": file},
            )
        try:
            printed = lambda: re.search(r"  API    http://localhost:(\d+)/", Path(folder, "out").read_text())
            wait_for("the ring", lambda: printed() or demo.poll() is not None)
            assert demo.poll() is None, Path(folder, "out").read_text()
            port = int(printed()[1])
            check_calls(port, tokens)
            check_revocation(port, file, tokens)
            check_traces(demo, ring, tokens)
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(20)


if __name__ == "__main__":
    main()
