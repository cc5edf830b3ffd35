#!/usr/bin/env python3
"""The pages in a real browser: a headless Chromium looks at a ring of its own while a process is killed and
the gateway stopped, and creates, finds, changes and deletes users.

    corro/tests/pages.py [--screenshots FOLDER]

Needs chromium and chromedriver (Debian: chromium, chromium-driver), and a built `corro`. Exit code 77: there
is no browser here. It speaks WebDriver (W3C Recommendation) with the standard library alone.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent
DEADLINE = 30
TOKEN = ""  # of the ring
PHONE, DESK = (390, 844), (1280, 900)
# All text that is shown, with its size and its contrast against what is painted behind it (WCAG 2.2, 1.4.3).
MEASURE = """
const canvas = new OffscreenCanvas(1, 1), brush = canvas.getContext('2d', { willReadFrequently: true });
const rgb = colour => {
  brush.clearRect(0, 0, 1, 1);
  brush.fillStyle = colour;
  brush.fillRect(0, 0, 1, 1);
  return [...brush.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b]
  .map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => {
  const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
const behind = node => {
  for (let at = node; at; at = at.parentElement) {
    const paint = rgb(getComputedStyle(at).backgroundColor);
    if (paint[3] === 255) return paint;
  }
  return [255, 255, 255, 255];
};
const found = [];
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
  const box = node.getBoundingClientRect();
  const silent = ['SCRIPT', 'STYLE', 'TITLE'].includes(node.tagName);
  if (!own || !box.width || !node.checkVisibility() || silent) continue;
  const style = getComputedStyle(node), svg = node.ownerSVGElement;
  const scale = svg ? node.getScreenCTM().a : 1;
  const halo = svg && style.stroke !== 'none' && style.paintOrder.startsWith('stroke');
  const back = halo ? rgb(style.stroke) : svg?.querySelector('.floor')
    ? rgb(getComputedStyle(svg.querySelector('.floor')).fill) : behind(node);
  found.push({
    text: node.textContent.trim().slice(0, 40),
    pixels: parseFloat(style.fontSize) * scale,
    contrast: contrast(rgb(svg ? style.fill : style.color), back),
    right: box.right,
  });
}
return found;
"""


class Browser:
    """One window of a headless Chromium."""

    def __init__(self, driver, port, profile, *arguments):
        self.base = f"http://127.0.0.1:{port}"
        options = {
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                f"--user-data-dir={profile}",
                *arguments,
            ]
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        wait_for("the driver", lambda: driver.poll() is None and self.ready())
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def ready(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {json.load(error)['value']['message']}") from None

    def do(self, method, path, body=None):
        return self.call(method, self.session + path, body)

    def open(self, url):
        self.do("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def element(self, css):
        (found,) = self.do("POST", "/element", {"using": "css selector", "value": css}).values()
        return f"/element/{found}"

    def click(self, css):
        self.do("POST", self.element(css) + "/click", {})

    def type(self, css, text):
        element = self.element(css)
        self.do("POST", element + "/clear", {})
        self.do("POST", element + "/value", {"text": text})

    def resize(self, size):
        self.run("window.scrollTo(0, 0)")
        # The window of a headless browser has a least width; what is emulated has none.
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def devtools(self, command, parameters):
        self.do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self):
        """Errors and warnings of the console, without advice."""
        said = self.do("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in said if entry["level"] in ("SEVERE", "WARNING")]


def wait_for(what, condition):
    deadline = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE} s"
        time.sleep(0.05)


def check_shape(browser, name, screenshots):
    """Nothing is too small, too pale, or cut off, on a desk and on a phone, by day and by night."""
    for size in (DESK, PHONE):
        browser.resize(size)
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.devtools("Emulation.setEmulatedMedia", {"features": features})
            # The picture is made anew at the next answer of the gateway.
            browser.run("return typeof picture !== 'undefined' && refresh()")
            found = browser.run(MEASURE)
            assert len(found) > 10, (name, found)
            small = [text for text in found if text["pixels"] < 11.5]
            pale = [text for text in found if text["contrast"] < 4.5]
            cut = [text for text in found if text["right"] > size[0] + 1]
            assert not small, f"{name}, {size}: smaller than 11.5 pixels: {small}"
            assert not pale, f"{name}, {size}, {scheme}: contrast below 4.5: {pale}"
            assert not cut, f"{name}, {size}: cut off: {cut}"
            if screenshots:
                shot = browser.do("GET", "/screenshot")
                import base64

                Path(screenshots, f"{name}-{size[0]}-{scheme}.png").write_bytes(base64.b64decode(shot))
    browser.resize(DESK)
    captions = browser.run(
        "return [...document.querySelectorAll('table')].map(t => t.caption?.textContent ?? '')"
    )
    assert all(captions), f"{name}: a table without a caption: {captions}"


def check_token(browser, url):
    """Without a token nothing is shown; one of a link is kept for the tab, and leaves the address."""
    asks = lambda: browser.run("return document.querySelector('#ask').hidden === false")
    for page in ("", "users/"):
        browser.open(url + page)
        wait_for("the question for a token", asks)
        assert "whole" not in browser.text("#says")
    browser.open(url + "#token=nonsense")
    browser.do("POST", "/refresh", {})
    wait_for("a refusal", lambda: "does not accept that token" in browser.text("#says"))
    browser.type("#token", TOKEN)
    browser.click("#ask button")
    wait_for("a whole ring", lambda: "The ring is whole." in browser.text("#says"))
    browser.run("sessionStorage.clear()")
    browser.open(url + f"users/#token={TOKEN}")
    wait_for("the users", lambda: "No user is found." == browser.text("#says"))
    assert TOKEN not in browser.run("return location.href")


def check_ring(browser, url, demo, screenshots):
    browser.open(url)
    said = lambda: browser.text("#says")
    wait_for("a whole ring", lambda: "The ring is whole." in said())
    wait_for("what the processes use", lambda: "MiB" in browser.text("#processes"))
    processes = browser.text("#processes")
    assert re.search(r"connected since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", processes), processes
    assert "corro demo kill db-1" in browser.text("footer"), browser.text("footer")
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:", browser.text("#events")), browser.text("#events")
    check_shape(browser, "ring", screenshots)

    demo("kill", "db-1")
    wait_for("the word that db-1 is away", lambda: "db-1 is away" in said())
    wait_for("since when it is down", lambda: re.search(r"down since \d{4}-", browser.text("#processes")))
    check_shape(browser, "away", screenshots)
    demo("restart", "db-1")
    wait_for("a whole ring again", lambda: "The ring is whole." in said())

    assert browser.text("#errors-more").startswith("4xx 0, 5xx 0"), browser.text("#errors-more")
    browser.run("""
        clearInterval(window.misses);
        window.misses = setInterval(() => ask('api/user/00000000-0000-4000-8000-000000000000'), 50)""")
    wait_for("errors a second", lambda: re.match(r"4xx (?!0,)", browser.text("#errors-more")))
    # What was not found is not in the latency of successes.
    assert browser.text("#r50") == "–", browser.text("#r50")
    browser.run("clearInterval(window.misses)")


def check_users(browser, url, screenshots):
    shown = lambda: browser.run(
        "return [...document.querySelectorAll('#users tr')].map(row => row.innerText)"
    )
    browser.open(url + "users/")
    wait_for("the empty list", lambda: browser.text("#says") == "No user is found.")

    def fill(**fields):
        for name, value in fields.items():
            browser.type(f"#fields input[name={name}]", value)
        browser.click("#save")

    browser.click("#new")
    fill(name="", email="ada", group="1.5")
    wait_for("what is wrong", lambda: browser.text("#error-email"))
    assert browser.text("#error-name") and browser.text("#error-group"), (
        "each field says what is wrong with it"
    )
    fill(name="Ada Lovelace", email="ada@example.org", group="7")
    wait_for("Ada", lambda: len(shown()) == 1 and "Ada Lovelace" in shown()[0])
    for number in range(60):
        body = json.dumps(
            {"name": f"User {number}", "email": f"u{number}@example.org", "group": number % 2}
        ).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(url + "api/user", body, headers)
        urllib.request.urlopen(request, timeout=DEADLINE).close()

    browser.type("#find input[name=which]", "ADA@example.org")
    browser.click("#find button")
    wait_for("Ada by email", lambda: len(shown()) == 1 and "Ada" in shown()[0])
    ada = browser.run("return document.querySelector('#users tr').dataset.id")
    browser.type("#find input[name=which]", ada.upper())
    browser.click("#find button")
    wait_for("Ada by id", lambda: browser.text("#says") == "1 shown.")
    browser.type("#find input[name=which]", "00000000-0000-4000-8000-000000000000")
    browser.click("#find button")
    wait_for("that there is none", lambda: browser.text("#says") == "No user has this id.")
    browser.type("#find input[name=which]", "not an address")
    browser.click("#find button")
    wait_for("that this is no address", lambda: "email address" in browser.text("#says"))
    browser.type("#find input[name=which]", "")
    browser.type("#find input[name=group]", "1")
    browser.click("#find button")
    wait_for("a group", lambda: len(shown()) == 30)
    browser.type("#find input[name=group]", "")
    browser.click("#find button")
    wait_for("a page", lambda: len(shown()) == 50)
    browser.click("#more")
    wait_for("all users", lambda: len(shown()) == 61 and "61 shown." == browser.text("#says"))
    check_shape(browser, "users", screenshots)

    browser.click(f"[data-id='{ada}'] button[aria-label^=Edit]")
    wait_for("the editor", lambda: browser.run("return document.querySelector('#edit').open"))
    # Changed by someone else while the editor is open.
    patch = urllib.request.Request(
        f"{url}api/user/{ada}", b'{"group":8}', headers, method="PATCH"
    )
    urllib.request.urlopen(patch, timeout=DEADLINE).close()
    fill(name="Ada King")
    wait_for("the word that it was changed", lambda: "changed meanwhile" in browser.text("#refused"))
    browser.click("#cancel")
    browser.click(f"[data-id='{ada}'] button[aria-label^=Edit]")
    wait_for(
        "the newer group", lambda: browser.run("return document.querySelector('#fields').group.value") == "8"
    )
    fill(name="Ada <b>King</b>")
    wait_for("the change", lambda: any("Ada <b>King</b>" in row for row in shown()))

    browser.click(f"[data-id='{ada}'] button[aria-label^=Delete]")
    wait_for("the question", lambda: browser.run("return document.querySelector('#removal').open"))
    browser.click("#remove")
    wait_for("one less", lambda: "60 in the ring" in browser.text("#count"))
    assert not any("Ada" in row for row in shown()), shown()


def check_late_answers(browser, url):
    """An answer that comes after something else was asked for changes nothing."""
    browser.open(url + "users/")
    wait_for("the users", lambda: browser.run("return document.querySelectorAll('#users tr').length") > 1)
    first = browser.run("return document.querySelector('#users tr').dataset.id")
    browser.run(
        """
        const real = window.fetch.bind(window);
        Object.assign(window, { waiting: [], late: 0 });
        window.fetch = async (path, options) => {
          if (!String(path).endsWith(arguments[0])) return real(path, options);
          await new Promise(go => window.waiting.push(go));
          const response = await real(path), text = await response.text();
          setTimeout(() => window.late += 1, 100);
          return new Response(text, response);
        };""",
        first,
    )

    def release(number):
        browser.run("window.waiting.splice(0).forEach(go => go())")
        wait_for("the late answer", lambda: browser.run("return window.late") == number)

    browser.click(f"[data-id='{first}'] button[aria-label^=Edit]")
    browser.click("#new")
    release(1)
    title = browser.text("#edit-title")
    assert title == "New user" and browser.run("return document.querySelector('#fields').name.value") == ""
    browser.click("#cancel")
    browser.type("#find input[name=which]", first)
    browser.click("#find button")
    browser.type("#find input[name=which]", "")
    browser.click("#find button")
    release(2)
    assert browser.run("return document.querySelectorAll('#users tr').length") > 1, "the list stays"


def check_silence(browser, url, demo):
    browser.open(url)
    wait_for("a whole ring", lambda: "The ring is whole." in browser.text("#says"))
    demo("stop", "gateway")
    wait_for("the word that it is silent", lambda: "did not answer" in browser.text("#says"))
    assert browser.run("return document.body.classList.contains('stale')")
    assert "whole" not in browser.text("#ring") + browser.run("return document.title"), (
        "nothing is said to be whole"
    )
    demo("restart", "gateway")
    wait_for("a whole ring again", lambda: "The ring is whole." in browser.text("#says"))
    assert not browser.run("return document.body.classList.contains('stale')")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshots")
    screenshots = parser.parse_args().screenshots
    chromium, chromedriver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not chromedriver:
        print("Left out: there is no chromium with chromedriver on this machine.")
        return 77
    corro = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target")) / "release" / "corro"
    folder = tempfile.mkdtemp(prefix="corro-pages-")
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("API_TOKEN") and key != "DB_PROCESSES"
    }
    running = []
    try:
        with open(f"{folder}/out", "wb") as out, open(f"{folder}/driver", "wb") as log:
            command = [corro, "demo", "--rest-port=0", "--socket-port=0", "--folder", folder]
            running.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
            running.append(subprocess.Popen([chromedriver, "--port=0"], stdout=log, stderr=log))
        printed = lambda name, pattern: re.search(pattern, Path(folder, name).read_text())
        url = wait_for("the ring", lambda: printed("out", r"  ring   (http://\S+?/)#token=\S+"))[1]
        global TOKEN
        TOKEN = Path(folder, "token").read_text().strip()
        port = wait_for("the driver", lambda: printed("driver", r"started successfully on port (\d+)"))[1]

        def demo(order, process):
            subprocess.run(
                [corro, "demo", "--folder", folder, order, process],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=DEADLINE,
            )

        browser = Browser(running[1], port, f"{folder}/profile")
        try:
            for check, arguments in (
                (check_token, (url,)),
                (check_ring, (url, demo, screenshots)),
                (check_users, (url, screenshots)),
                (check_late_answers, (url,)),
                (check_silence, (url, demo)),
            ):
                check(browser, *arguments)
                print(f"ok    {check.__name__}", flush=True)
            browser.open(url + "docs/")
            wait_for("the calls", lambda: "/api/user" in browser.text("#calls"))
            check_shape(browser, "docs", screenshots)
            print("ok    check_docs", flush=True)
            # A failed request is logged by the browser itself; what the pages do wrong is not.
            wrong = [line for line in browser.complaints() if "Failed to load resource" not in line]
            assert not wrong, wrong
        finally:
            browser.do("DELETE", "")
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
