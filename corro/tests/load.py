#!/usr/bin/env python3
"""Reads and writes users through a gateway until SIGINT, and says what failed.

    load.py URL [READERS] [WRITERS]

Each user has one writer, which counts its writes in the user's group, so a reader knows what it may not
see any more: a number below the one that was acknowledged before it asked. Exit code 1 where a read
failed or was older than that.
"""

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import urllib.parse
from collections import Counter

USERS_A_WRITER = 50
TIMEOUT = 15
TOKEN = os.environ.get("API_TOKEN")

url = urllib.parse.urlsplit(sys.argv[1])
readers = int(sys.argv[2]) if len(sys.argv) > 2 else 48
writers = int(sys.argv[3]) if len(sys.argv) > 3 else 16
acknowledged = {}  # id -> group
stop = threading.Event()
counts, examples, lock = Counter(), [], threading.Lock()


class Client:
    """One connection that is kept."""

    def __init__(self):
        self.connection = None

    def call(self, method, path, body=None):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT)
        try:
            headers = {} if body is None else {"content-type": "application/json"}
            if TOKEN:
                headers["authorization"] = f"Bearer {TOKEN}"
            self.connection.request(method, path, body and json.dumps(body), headers)
            response = self.connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            return f"{type(error).__name__}: {error}", b""


def note(kind, detail=""):
    with lock:
        counts[kind] += 1
        if detail and len(examples) < 10:
            examples.append(f"{kind}: {detail}")


def read(seed):
    client, choose = Client(), random.Random(seed)
    ids = list(acknowledged)
    while not stop.is_set():
        user = choose.choice(ids)
        expected = acknowledged[user]
        status, body = client.call("GET", f"/api/user/{user}")
        if status != 200:
            note("failed reads", f"{user} {status} {body[:200]!r}")
        elif json.loads(body)["group"] < expected:
            note("stale reads", f"{user} expected {expected} or more, got {body[:200]!r}")
        else:
            note("reads")


def write(users):
    client = Client()
    group = {user: acknowledged[user] for user in users}
    while not stop.is_set():
        for user in users:
            group[user] += 1
            status, body = client.call("PUT", "/api/user/", {"id": user, "group": group[user]})
            if status == 200:
                acknowledged[user] = group[user]
                note("writes")
            elif status in (503, 504):
                # Refused, or unknown: a later number may be seen by a reader, which is not older.
                note("refused writes" if status == 503 else "writes of unknown outcome")
                stop.wait(0.02)
            else:
                note("failed writes", f"{user} {status} {body[:200]!r}")
            if stop.is_set():
                return
        time.sleep(0.01)


def create(count):
    client, users = Client(), []
    for number in range(count):
        status, body = client.call(
            "POST", "/api/user/", {"name": f"User {number}", "email": f"u{number}@example.com"}
        )
        if status != 201:
            sys.exit(f"a user could not be created: {status} {body[:200]!r}")
        users.append(json.loads(body)["id"])
    return users


def main():
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    shares = [create(USERS_A_WRITER) for _ in range(writers)]
    acknowledged.update((user, 0) for share in shares for user in share)
    tasks = [threading.Thread(target=read, args=(seed,)) for seed in range(readers)]
    tasks += [threading.Thread(target=write, args=(share,)) for share in shares]
    begun = time.monotonic()
    for task in tasks:
        task.start()
    print(f"running: {readers} readers and {writers} writers on {len(acknowledged)} users", flush=True)
    stop.wait()
    for task in tasks:
        task.join()
    for kind in ("failed reads", "stale reads", "failed writes"):
        counts[kind] += 0
    print(
        f"{time.monotonic() - begun:.0f} s: "
        + ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    )
    print("\n".join(examples))
    sys.exit(1 if counts["failed reads"] or counts["stale reads"] or counts["failed writes"] else 0)


main()
