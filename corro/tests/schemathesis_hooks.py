"""What the document of this API cannot say: what one part of a request means for another."""

import json
import re
import urllib.parse
import uuid

import schemathesis

TAG = r'(W/)?"[!#-~\x80-\xff]*"'
ID = re.compile(r"(?i:(urn:uuid:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
TAGS = re.compile(rf"\*|[\t ,]*{TAG}([\t ]*,[\t ,]*{TAG})*[\t ]*(,[\t ,]*)?")


@schemathesis.hook
def before_call(context, case, kwargs):
    headers, body = case.headers, case.body
    if headers:
        # The same key with another body is a 422, as it should be: each request gets a key of its own.
        key = headers.get("Idempotency-Key")
        if isinstance(key, str) and 0 < len(key) < 200:
            headers["Idempotency-Key"] = f"{key}-{uuid.uuid4().hex}"
        # Requests that are meant to be right carry `If-Match: 0` in the coverage phase of 4.32, which the
        # pattern excludes.
        for name in ("If-Match", "If-None-Match"):
            if (
                case.meta
                and case.meta.generation.mode.is_positive
                and not TAGS.fullmatch(headers.get(name, "*"))
            ):
                del headers[name]
        # To create a user takes more than to change one.
        if (
            headers.get("If-None-Match") == "*"
            and isinstance(body, dict)
            and not {"name", "email"} <= body.keys()
        ):
            del headers["If-None-Match"]
    if isinstance(body, dict):
        # An id in the body has to be the one in the path.
        in_path = urllib.parse.unquote(str((case.path_parameters or {}).get("id")))
        if is_uuid(body.get("id")) and is_uuid(in_path):
            body["id"] = in_path


def is_uuid(value):
    return isinstance(value, str) and bool(ID.fullmatch(value))


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """What is no text goes out as one line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode(errors="replace")
