"""A client of the feed: python-socketio, as anyone would use it. One line of JSON for each event.

Usage: changes.py URL websocket|polling [TOKEN]

It connects again by itself when the connection breaks, and goes on after the last event that it has seen.
It is the asynchronous client of the library: the other one calls handlers on many threads, and so loses
the order of the events.

A client that polls gets all that has happened since the last poll in one answer. The library refuses one
with more than 16 packets, so that is raised to more than the gateway ever puts into one.
"""

import asyncio
import json
import sys

import socketio
from engineio.payload import Payload

Payload.max_decode_packets = 10_000

url, transport = sys.argv[1:3]
token = sys.argv[3] if len(sys.argv) > 3 else None
last = None
client = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=1)


def auth():
    return {"token": token, "after": last}


def say(event, event_id=None, data=None):
    print(json.dumps({"event": event, "id": event_id, "data": data}), flush=True)


@client.on("*", namespace="/changes")
async def changed(event, *arguments):
    global last
    if event == "subscribed":
        last = last or arguments[0]
        say(event, arguments[0])
    elif event in ("dropped", "gone"):
        say(event, None, arguments[0])
    else:
        user, last = arguments
        say(event, last, user)


@client.on("connect_error", namespace="/changes")
async def refused(reason):
    say("refused", None, str(reason))


async def main():
    await client.connect(url, namespaces=["/changes"], transports=[transport], auth=auth, retry=True)
    await client.wait()


asyncio.run(main())
