"""A client that was generated from the OpenAPI document performs every call."""

import importlib
import io
import os
import pkgutil
import sys
import uuid

import corro_client.api
from corro_client import AuthenticatedClient, models
from corro_client.types import File

url = sys.argv[1]
client = AuthenticatedClient(
    base_url=url, token=os.environ["CORRO_TOKEN"], raise_on_unexpected_status=True, timeout=30
)
calls = {
    name.rsplit(".", 1)[1]: importlib.import_module(name)
    for _, name, is_package in pkgutil.walk_packages(corro_client.api.__path__, "corro_client.api.")
    if not is_package
}
made = set()


def call(name, status, **arguments):
    answer = calls[name].sync_detailed(client=client, **arguments)
    assert int(answer.status_code) == status, (name, answer)
    if status >= 400:
        assert isinstance(answer.parsed, models.Problem) and answer.parsed.status == status, (name, answer)
    made.add(name)
    return answer


def same(user, **fields):
    for name, value in fields.items():
        assert getattr(user, name) == value, (user, name, value)


call("get_liveness", 200)
call("get_readiness", 200)
new = models.NewUser(name="Ada", email="o'neill@example.com", group=7)
created = call("create_user", 201, body=new, idempotency_key=str(uuid.uuid4()))
same(created.parsed, name="Ada", email="o'neill@example.com", group=7)
one, tag = str(created.parsed.id), created.headers["etag"]

same(call("get_user", 200, id=one).parsed, group=7)
call("get_user", 304, id=one, if_none_match=tag)
call("get_user", 412, id=one, if_match='"0000000000000001"')
call("get_user", 404, id=str(uuid.uuid4()))
same(call("update_user", 200, id=one, body=models.Patch(group=8), if_match=tag).parsed, group=8, name="Ada")
call("update_user", 412, id=one, body=models.Patch(group=9), if_match=tag)
same(call("patch_user", 200, id=one, body=models.Patch(name="Ada King")).parsed, name="Ada King", group=8)
same(call("update_user_named_in_body", 200, body=models.Put(id=one, group=9)).parsed, group=9)
other = models.Put(id=str(uuid.uuid4()), name="Bob", email="bob@example.org")
same(call("update_user_named_in_body", 201, body=other, if_none_match="*").parsed, name="Bob")
call("create_user", 422, body=models.NewUser(name="", email="x"))

page = call("list_users", 200, limit=1).parsed
assert len(page.items) == 1 and page.next_cursor, page
assert call("list_users", 200, limit=1000, cursor=page.next_cursor).parsed.items
assert call("list_users", 200, email="O'NEILL@example.com", group=9).parsed.items[0].id == created.parsed.id
assert call("count_users", 200).parsed.count >= 2
assert call("count_users", 200, group=9).parsed.count >= 1

assert call("get_cluster", 200).parsed.size >= 1
assert call("check_copies", 200, scan=True).parsed.equal
call("repair_partition", 200, partition=0)
call("promote_partition", 409, partition=0)
call("promote_partition", 404, partition=60_000)
call("get_metrics", 200)
call("delete_user", 204, id=one)
call("delete_user", 404, id=one)
assert not call("erase_user", 200, id=one).parsed.existed

line = b'{"op":"delete","id":"%s"}\n' % str(other.id).encode()
results = call("change_users_in_bulk", 200, body=File(payload=io.BytesIO(line)))
assert b'"status":204' in results.content, results.content
call("change_users_in_bulk", 200, body=File(payload=io.BytesIO(b"")))

# A stream is beyond what such a client reads; the request that it would send is right.
kwargs = calls["listen_to_changes"]._get_kwargs()
with client.get_httpx_client().stream(**kwargs) as stream:
    assert stream.status_code == 200 and next(stream.iter_lines()).startswith("retry:")
made.add("listen_to_changes")

assert made >= calls.keys(), f"not called: {calls.keys() - made}"
print(f"generated client: {len(made)} calls")
