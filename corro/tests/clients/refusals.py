"""Every refusal reaches Python's http.client and python-socketio, each time.

http.client sends all of a body before it reads, and keeps its connection. What is refused before its body is
read has to be answered all the same, and the connection goes on, or the answer says that it does not.
"""

import asyncio
import http.client
import sys
import urllib.parse

import socketio

TRIES = 100
USER = "/api/user/01924000-0000-7000-8000-00000000dead"
REFUSED = [
    ("POST", "/nowhere", 404),
    ("PATCH", "/api/user", 405),
    ("POST", "/api/user/bulk", 415),
    ("POST", "/api/user", 415),
    ("PUT", "/api/user/no-id", 400),
    ("DELETE", USER, 404),
    ("POST", "/api/user?nonsense=1", 400),
    ("POST", "/socket.io/?EIO=3&transport=polling", 400),
]

url = sys.argv[1]
host = urllib.parse.urlsplit(url).netloc
answered = 0
for method, path, status in REFUSED:
    for size in (10, 3_000, 60_000, 1_000_000, 12_000_000):
        connection = http.client.HTTPConnection(host, timeout=20)
        # The largest is sent less often, or this would take minutes.
        for _ in range(TRIES if size <= 1_000_000 else TRIES // 10):
            connection.request(method, path, b"x" * size, {"content-type": "text/plain"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, (method, path, size, answer.status)
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, (method, path, size, answer.status)
            answered += 1
        connection.close()
print(f"http.client: {answered} refusals of {len(REFUSED)} kinds were heard")


async def refused(auth):
    client = socketio.AsyncClient(reconnection=False)
    said = asyncio.get_running_loop().create_future()

    @client.on("connect_error", namespace="/changes")
    async def on_error(reason):
        if not said.done():
            said.set_result(str(reason))

    try:
        await client.connect(url, namespaces=["/changes"], auth=auth, wait=False)
        return await asyncio.wait_for(said, 10)
    finally:
        await client.disconnect()


async def main():
    for after, kind in [("nonsense", "malformed-event-id"), ("f" * 16, "future-event-id")]:
        for _ in range(TRIES):
            said = await refused({"after": after})
            assert kind in said, said
    print(f"python-socketio: {2 * TRIES} refusals were heard")


asyncio.run(main())
