#!/usr/bin/env python3
"""Pages of another origin in a real browser: a headless Chromium on the machine of a ring opens a page of a
stranger, which tries to read and to change users by fetch, a form, a script, a WebSocket, the event stream,
the socket.io feed, and DNS rebinding, on every port. Each attempt fails. The same page from this machine may
read: so the attempts are such that succeed where they are allowed.

Needs chromium and chromedriver (Debian: chromium, chromium-driver).
"""

import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "lib"), str(HERE.parent)]
from pages import Browser, wait_for
from ring import Ring

NAME = "other.example"
# What each attempt has come to; a page that is left has no say any more.
RESULT = "return window.result ?? null"


def attempt(browser, script, *arguments):
    """Runs the body of an async function in the page, and returns what it returns; `null` where it throws."""
    browser.run(
        "window.result = undefined;"
        f"(async (...given) => {{ {script} }})(...arguments)"
        ".then(value => { window.result = { value: value ?? null }; },"
        " error => { window.result = { value: null, error: String(error) }; })",
        *arguments,
    )
    return wait_for("the attempt", lambda: browser.run(RESULT))["value"]


FETCH = "const answer = await fetch(given[0], given[1] ?? {}); return [answer.status, await answer.text()];"
OPAQUE = "const answer = await fetch(given[0], { ...given[1], mode: 'no-cors' }); return answer.type;"
# Opens a WebSocket, says that it is a client of socket.io, and returns what comes first.
SOCKET = """
return await new Promise((resolve, reject) => {
  const socket = new WebSocket(given[0]);
  socket.onmessage = event => resolve(event.data);
  socket.onerror = () => reject('refused');
  setTimeout(() => reject('nothing came'), 3000);
});
"""
STREAM = """
return await new Promise((resolve, reject) => {
  const stream = new EventSource(given[0]);
  stream.onopen = () => { stream.close(); resolve('open'); };
  stream.onerror = () => { stream.close(); reject('refused'); };
});
"""
SCRIPT = """
return await new Promise((resolve, reject) => {
  const script = document.createElement('script');
  script.src = given[0];
  script.onload = () => resolve('loaded');
  script.onerror = () => reject('refused');
  document.head.append(script);
});
"""
FORM = """
const form = document.createElement('form');
[form.action, form.method, form.enctype] = arguments;
form.innerHTML = '<input name=\\'{"name":"Mallory","email":"m@example.org","x":"\\' value=\\'"}\\'>';
document.body.append(form);
form.submit();
"""
JSON = {"content-type": "application/json"}


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>page</title><body></body>")

    def log_message(self, *_):
        pass


def users(ring):
    return sorted(user["name"] for user in json.loads(ring.request("GET", "/api/user")[1])["items"])


def check_reads(browser, ring, page, user):
    """A page of a stranger."""
    browser.open(page)
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{ring.rest}"
        for path in ("/api/user", f"/api/user/{user}", "/api/cluster", "/metrics", "/openapi.json", "/users"):
            assert attempt(browser, FETCH, url + path) is None, path
        assert attempt(browser, STREAM, url + "/api/user/changes") is None
        assert attempt(browser, SCRIPT, url + "/api/user") is None
        polling = "/socket.io/?EIO=4&transport=polling"
        assert attempt(browser, FETCH, url + polling) is None
        for port in ring.ports().values():
            socket = f"ws://{host}:{port}/socket.io/?EIO=4&transport=websocket"
            assert attempt(browser, SOCKET, socket) is None, socket


def check_changes(browser, ring, page, user):
    """A page of a stranger sends what a browser lets it send without asking, and what it asks about."""
    before, events = users(ring), ring.cluster()["events"]
    body = json.dumps({"name": "Mallory", "email": "mallory@example.org"})
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{ring.rest}"
        calls = [("POST", "/api/user"), ("POST", "/api/cluster/promote/1"), ("POST", "/api/cluster/repair/1")]
        calls += [(method, f"/api/user/{user}") for method in ("PUT", "PATCH", "DELETE")]
        browser.open(page)
        for method, path in calls:
            with_json = {"method": method, "headers": JSON, "body": body}
            assert attempt(browser, FETCH, url + path, with_json) is None, path
            assert attempt(browser, FETCH, url + path, {"method": method}) is None, path
            if method == "POST":
                attempt(browser, OPAQUE, url + path, {"method": method, "body": body})
                attempt(browser, OPAQUE, url + path, {"method": method})
        for _, path in calls[:3]:
            for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
                browser.open(page)
                browser.run(FORM, url + path, "post", kind)
                shown = wait_for("the answer", lambda: re.search(r'"type":"(\S+?)"', browser.text("body")))
                assert shown[1] == "urn:corro:problem:foreign-origin", shown
    assert users(ring) == before, "users were changed"
    assert ring.cluster()["events"] == events, "the ring was changed"


def check_rebinding(browser, ring):
    """A name of a stranger that leads to this machine: for the browser its pages are those of the gateway."""
    url = f"http://{NAME}:{ring.rest}"
    browser.open(url + "/users")
    assert "unknown-host" in browser.text("body"), browser.text("body")
    assert browser.run("return location.host") == f"{NAME}:{ring.rest}"
    before = users(ring)
    for path in ("/api/user", "/metrics", "/socket.io/?EIO=4&transport=polling"):
        status, text = attempt(browser, FETCH, path)
        assert status == 421 and "Ada" not in text, (path, text)
    body = json.dumps({"name": "Mallory", "email": "mallory@example.org"})
    status, _ = attempt(browser, FETCH, "/api/user", {"method": "POST", "headers": JSON, "body": body})
    assert status == 421 and users(ring) == before
    assert attempt(browser, STREAM, "/api/user/changes") is None
    for port in ring.ports().values():
        socket = f"ws://{NAME}:{port}/socket.io/?EIO=4&transport=websocket"
        assert attempt(browser, SOCKET, socket) is None, socket


def check_own_machine(browser, ring, page):
    """The same attempts by a page that may."""
    browser.open(page)
    url = f"http://127.0.0.1:{ring.rest}"
    status, text = attempt(browser, FETCH, url + "/api/user")
    assert status == 200 and "Ada" in text, text
    assert attempt(browser, STREAM, url + "/api/user/changes") == "open"
    socket = f"ws://127.0.0.1:{ring.rest}/socket.io/?EIO=4&transport=websocket"
    assert attempt(browser, SOCKET, socket).startswith("0{"), "the first packet of engine.io"
    body = json.dumps({"name": "Bo", "email": "bo@example.org"})
    with_json = {"method": "POST", "headers": JSON, "body": body}
    status, text = attempt(browser, FETCH, url + "/api/user", with_json)
    assert status == 201, text
    # Its ring's own ports take no page at all.
    for name, port in ring.ports().items():
        if name != "REST":
            socket = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
            assert attempt(browser, SOCKET, socket) is None, name


def main():
    chromedriver = shutil.which("chromedriver")
    if not chromedriver or not shutil.which("chromium"):
        print("There is no chromium with chromedriver on this machine.")
        return 77
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stranger, own = (f"http://{name}:{server.server_port}/" for name in (NAME, "127.0.0.1"))
    folder = tempfile.mkdtemp(prefix="corro-browser-")
    with open(f"{folder}/driver", "wb") as log, Ring() as ring:
        driver = subprocess.Popen([chromedriver, "--port=0"], stdout=log, stderr=log)
        try:
            printed = lambda: re.search(r"started successfully on port (\d+)", Path(log.name).read_text())
            port = wait_for("the driver", printed)[1]
            resolver = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
            browser = Browser(driver, port, f"{folder}/profile", resolver)
            user = ring.create("Ada", "ada@example.org")["id"]
            for check, arguments in (
                (check_own_machine, (own,)),
                (check_reads, (stranger, user)),
                (check_changes, (stranger, user)),
                (check_rebinding, ()),
            ):
                check(browser, ring, *arguments)
                print(f"ok    {check.__name__}", flush=True)
            browser.do("DELETE", "")
        finally:
            driver.terminate()
            driver.wait(10)
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
