"""What Schemathesis cannot know of this API from its document."""

import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """The same key with another body is a 422, as it should be: each request gets a key of its own."""
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) < 200:
        headers["Idempotency-Key"] = f"{key}-{uuid.uuid4().hex}"
