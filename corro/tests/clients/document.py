"""What the OpenAPI document says of a value is what the gateway does with it, in both directions.

Values that are made from the document's patterns have to be taken. Values that are made without it, valid
ones and those with a few characters changed, have to be taken exactly if the document allows them. Fields go
through `/api/user/bulk`, which reads them as the single calls do, thousands at a time.
"""

import http.client
import itertools
import json
import random
import sys
import unicodedata
import urllib.parse
import uuid

import jsonschema_rs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEED = 7
url = sys.argv[1]
host = urllib.parse.urlsplit(url).netloc
random.seed(SEED)


def call(method, path, body=None, headers={}):
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    got = answer.status, answer.read()
    connection.close()
    return got


document = json.loads(call("GET", "/openapi.json")[1])
new_user = document["components"]["schemas"]["NewUser"]
fields = new_user["properties"]
parameters = {p["name"]: p["schema"] for p in document["paths"]["/api/user"]["get"]["parameters"]}
put = {p["name"]: p["schema"] for p in document["paths"]["/api/user"]["put"]["parameters"]}


def made_from(pattern, count):
    """Texts that the pattern describes."""
    made = []

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True))
    def make(text):
        made.append(text)

    make()
    return made


def changed(texts, characters, count):
    """Each with one or two characters put in, taken out, doubled or replaced."""
    for _ in range(count):
        text = list(random.choice(texts))
        for _ in range(random.randint(1, 2)):
            at = random.randrange(len(text) + 1)
            text[at : at + random.randint(0, 1)] = random.choices(characters, k=random.randint(0, 1))
        yield "".join(text)


def taken(lines):
    """Whether each line of a bulk request was taken."""
    text = "\n".join(lines).encode() + b"\n"
    status, body = call("POST", "/api/user/bulk", text, {"content-type": "application/x-ndjson"})
    assert status == 200, body
    results = [json.loads(line)["status"] for line in body.splitlines()]
    assert len(results) == len(lines), (len(results), len(lines))
    assert set(results) <= {201, 404, 409, 412, 422}, set(results)
    return [status != 422 for status in results]


def compare(what, schema, values, line, must_be_valid=False, form=lambda value: value):
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    values = list(dict.fromkeys(values))
    allowed = [validator.is_valid(form(value)) for value in values]
    assert all(allowed) or not must_be_valid
    wrong = [
        (value, allows, takes)
        for value, allows, takes in zip(values, allowed, taken([line(value) for value in values]))
        if allows != takes
    ]
    assert not wrong, f"{what}: {len(wrong)} of {len(values)}: (value, allowed, taken) {wrong[:5]}"
    print(f"{what}: {len(values)} values, of which {sum(allowed)} are allowed and taken, and no others")


def field(name):
    good = {"op": "create", "name": "N", "email": "a@b"}
    return lambda value: json.dumps({**good, name: value})


def main():
    label, local = "d" * 63, "l" * 64
    emails = [
        "a.b.c@example.com", "o'neill@example.com", "user%tag@example.com", "a@b", "!#$%&'*+-/=?^_`{|}~@x",
        "user@sub-domain-with-many-hyphens.example.com", "1@2.3", "a@xn--bcher-kva.example", "a@b-c.d--e",
        '"a b"@example.org', '"a@b"@example.org', r'"a\"b\\c"@example.org', '""@x', "a@[127.0.0.1]",
        "a@[255.249.199.99]", "a@[IPv6:::1]", "a@[ipv6:2001:db8::7]", "a@[IPv6:1:2:3:4:5:6:7:8]",
        "a@[IPv6:::ffff:1.2.3.4]", "a@[IPv6:1::1.2.3.4]", "a@[IPv6:1:2:3:4:5:6:1.2.3.4]", "a@[IPv6:1::]",
        "a@[IPv6:1:2:3:4:5:6:7::]", "a@[IPv6:::2:3:4:5:6:7:8]", f"{local}@{label}.org", f'"{local[:62]}"@x',
        f"{local}@{label}.{label}.{'e' * 61}", f"l{local}@x", f"a@d{label}", "a@[01.2.3.4]", "a@[1.2.3.256]",
        "a@[IPv6:1:2:3:4:5:6:7:8:9]", "a@[IPv6:1::2::3]", "a@[IPv6:12345::]", "a@[IPv6:1.2.3.4::]",
        "a@[IPv6:1:2:3:4:5:6:7]", "a@[::1]", "a@[x-tag:y]", "a@[]", "a@b@c", ".a@b", "a.@b", "a..b@c", "ä@b",
    ]  # fmt: skip
    characters = 'aZ09.@-_!"\\ []:%ä\t\n\0IPv6f()<>,;{|}~/'
    email = fields["email"]
    compare("emails of the document", email, made_from(email["pattern"], 2_000), field("email"), True)
    emails += list(changed(emails, characters, 20_000))
    compare("emails of the grammar", email, emails, field("email"))

    names = ["Ada", "x" * 256, "y" * 257, "", " ", "李", "👩‍👩‍👧", "e\u0301", "e\u0301" * 256, "\u0958" * 129]
    names += [f"a{chr(code)}b" for code in [*range(0x250), 0x2028, 0x202E, 0xFEFF, 0xFFFD, 0x1F600]]
    normal = lambda text: unicodedata.normalize("NFC", text)  # noqa: E731
    names += made_from(fields["name"]["pattern"], 500)
    compare("names", fields["name"], names, field("name"), form=normal)

    one = str(uuid.UUID(int=random.getrandbits(128)))
    ids = [form for form in (one, one.replace("-", ""), f"urn:uuid:{one}")]
    ids += [form.upper() for form in ids]
    ids += [f"Urn:Uuid:{one}", f"{{{one}}}", "urn:uuid:" + one.replace("-", "")]
    compare("ids of the document", fields["id"], made_from(fields["id"]["pattern"], 500), field("id"), True)
    compare("ids", fields["id"], ids + list(changed(ids, "0aFg-:{}u ", 3_000)), field("id"))

    numbers = ["0", "-0", "1.0", "-0.0", "1e2", "1.5e1", "1E+2", "2147483647", "-2147483648", "2147483647.0"]
    numbers += ["1e9", "1.5", "1e-1", "2147483648", "-2147483649", "1e10", "1e300"]
    numbers += ["true", '"1"', "[]", "{}", "null"]
    numbers += [f"{random.uniform(-3e9, 3e9):.{places}f}" for places in (0, 1) for _ in range(200)]
    line = lambda text: '{"op":"create","name":"N","email":"a@b","group":%s}' % text  # noqa: E731
    compare("groups", fields["group"], numbers, line, form=json.loads)

    objects = ["{}", "[]", "null", "1", '"x"', '{"name":"N","email":"a@b","more":1}']
    choices = {"id": ["null", "1"], "name": ['"N"', "null", '""', "1"], "email": ['"a@b"', "null", '"a"'],
               "group": ["null", "1", '"1"'], "more": ["null"]}  # fmt: skip
    for names in itertools.chain.from_iterable(itertools.combinations(choices, n) for n in range(5)):
        for values in itertools.product(*(choices[name] for name in names)):
            objects.append("{%s}" % ",".join(f'"{name}":{value}' for name, value in zip(names, values)))
    validator = jsonschema_rs.validator_for(new_user)
    for text in objects:
        status = call("POST", "/api/user", text, {"content-type": "application/json"})[0]
        assert (status == 201) == validator.is_valid(json.loads(text)), (text, status)
    print(f"bodies: {len(objects)} of them are taken exactly if they are allowed")

    tags = ["*", '"0190a5b27c3d0000"', 'W/"a"', '"a", "b"', '""', ' , "a,b" ,', '"a" "b"', '"a"*', "a", "*,*"]
    tags = [tag for tag in tags + list(changed(tags, '"*W/, a\t', 5_000)) if tag.strip() == tag]
    for name in ("If-Match", "If-None-Match"):
        schema = jsonschema_rs.validator_for(put[name])
        some = tags if name == "If-None-Match" else tags[:300]
        for tag in some[:400]:
            body = json.dumps({"id": one, "name": "N", "email": "a@b"})
            status = call("PUT", "/api/user", body, {name: tag, "content-type": "application/json"})[0]
            assert (status == 400) != schema.is_valid(tag), (name, tag, status)
    absent = {"op": "update", "id": str(uuid.UUID(int=1))}
    compare("conditions", put["If-Match"], tags, lambda tag: json.dumps({**absent, "if_match": tag}))

    for name, texts in {
        "email": ["", "a@b", "a", "ada+x@example.org", '"a b"@x', "a@b@c"],
        "cursor": ["", "x", "x" * 34 + "="],
        "limit": ["1", "1000", "0", "1001", "-1", "1.5", "x", "+1"],
        "group": ["0", "-2147483648", "2147483648", "1.5", "x", "+1"],
    }.items():
        schema = jsonschema_rs.validator_for(parameters[name])
        for text in texts:
            is_number = parameters[name]["type"] == "integer" and text.lstrip("-").isdigit()
            status = call("GET", f"/api/user?{name}={urllib.parse.quote(text)}")[0]
            assert (status == 200) == schema.is_valid(int(text) if is_number else text), (name, text, status)
    print("parameters of a list: taken exactly if they are allowed")


main()
