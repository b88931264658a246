"""Whatever comes in, what goes out is a clear JSON 4xx."""

import asyncio
import io
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
BODIES: dict[str, dict[str, Any]] = {
    "/card/charges": {"card": CARD},
    "/upi/payments": {"flow": "collect", "vpa": "a@upi", "callbackURL": "http://127.0.0.1/"},
    "/bank/payments": {"bankCode": "HDFC", "callbackURL": "http://127.0.0.1/"},
    "/card/charges/ref/reverse": {},
    "/admin/timeline": {"startAtMs": 1},
}
PART = {"reference": "part", "amount": 1000, "currency": "INR"}
LATER: dict[str, dict[str, Any]] = {  # about a charge, which must be there for a good one; a bad one never gets that far
    "/card/charges/ref/increment": PART,
    "/card/charges/ref/capture": PART | {"final": True},
    **{
        f"/{path}/ref/refunds": PART | {"callbackURL": "http://127.0.0.1/"}
        for path in ("card/charges", "upi/payments", "bank/payments")
    },
    "/card/disputes/dp_1/evidence": {"text": "a receipt"},
}
COMMON = {"reference": "ref", "amount": 1000, "currency": "INR", "merchantID": "m"}


def body(path: str) -> dict[str, Any]:
    if path.endswith("reverse"):
        return {"amount": 1000, "currency": "INR"}
    if path in LATER:
        return LATER[path]
    return BODIES[path] if path.startswith("/admin") else COMMON | BODIES[path]


async def refused(client, path: str, data: bytes | str) -> str:
    """Sends it, checks that it is refused as promised and that nothing happened, and gives the sentence."""
    status, answer, headers = await client.call("POST", path, data=data)
    assert (status, answer["code"], headers["X-Paydrome-Delay-Ms"]) == (400, "invalid_request", "0")
    assert await client.journal() == []
    return answer["error"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_good_body_is_accepted(start, path):
    client = await start()
    assert (await client.call("POST", path, json=body(path)))[0] == 200


async def test_a_host_that_cannot_be_written_down_again_is_refused(start):
    client = await start()
    data = json.dumps(body("/bank/payments")).encode()
    head = b"POST /bank/payments HTTP/1.1\r\nHost: \xff\r\nContent-Length: %d\r\n\r\n" % len(data)
    status, sentence = await client.raw(head + data)
    assert (status, "the Host must be printable ASCII" in sentence) == (400, True)
    assert await client.journal() == []


@pytest.mark.parametrize("path", [*BODIES, *LATER])
async def test_bodies_that_are_no_json_object_are_refused(start, path):
    client = await start()
    garbage = [b"", b"{", b"null", b"[]", b'"x"', b"\xff", b'{"reference":"\xff"}', b"\x00", b"NaN", b"[" * 100_000]
    garbage += [b'{"x":' * 20_000 + b"1" + b"}" * 20_000, json.dumps(body(path)).encode() + b"x"]
    for data in garbage:
        await refused(client, path, data)


async def test_a_body_that_is_nested_too_deeply_is_refused(start):
    client = await start()
    await refused(client, "/admin/tenants", b'{"name":"x","simulators":{"card":' + b"[" * 100_000)


@pytest.mark.parametrize("path", [*BODIES, *LATER])
async def test_missing_unknown_and_wrongly_typed_fields_are_refused_by_name(start, path):
    client = await start()
    good = body(path)
    optional = {"expiresInMs", "returnURL", "orderID", "final"} | ({"callbackURL"} if path in LATER else set())
    for name in good:
        without = {key: value for key, value in good.items() if key != name}
        if name not in optional:
            assert name in await refused(client, path, json.dumps(without))
        for wrong in (None, [], {}, 1.5, True):
            if (wrong is None and (name == "vpa" or (name in optional and path in LATER))) or (
                wrong is True and name == "final"
            ):
                continue
            assert name in await refused(client, path, json.dumps(good | {name: wrong}))
    assert "`surprise`" in await refused(client, path, json.dumps(good | {"surprise": 1}))


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *[("/card/charges", "reference", value) for value in ("", "a" * 65, "a b", "a/b", "ä", "a\n", "a\0", 5)],
        *[("/card/charges", "amount", value) for value in (0, -1, 10**15 + 1, 10**400, "1000", 1.0)],
        *[("/card/charges", "currency", value) for value in ("", "inr", "INRX", "IN\0", "INR\n")],
        *[("/card/charges", "merchantID", value) for value in ("", "a\0b", "a\nb", "x" * 256)],
        *[("/card/charges", "orderID", value) for value in ("", "a\0b", "x" * 256)],
        *[("/upi/payments", "vpa", value) for value in ("", "a", "a@", "@b", "a b@upi", "a@upi\n", "a\0@upi", None)],
        *[("/upi/payments", "flow", value) for value in ("", "push", "Collect")],
        ("/upi/payments", "currency", "USD"),
        ("/upi/payments", "merchantID", "a\0b"),
        *[
            ("/upi/payments", "callbackURL", value)
            for value in ("", "x", "ftp://x/", "javascript:alert(1)", "http://", "http://x/ y", "http:///x")
        ],
        *[("/upi/payments", "expiresInMs", value) for value in (0, -1, 10**9, 1.5)],
        *[("/bank/payments", "bankCode", value) for value in ("", "abc", "hdfc0000001", "HDFC\0", "X" * 12)],
        *[
            ("/bank/payments", "returnURL", value)
            for value in (
                "",
                "javascript:alert(1)",
                "//evil/",
                "http://x/\r\nSet-Cookie: a=b",
                'https://x/"><script>',
                "data:text/html,x",
            )
        ],
        *[("/admin/timeline", "startAtMs", value) for value in (-1, 10**18, 1.5, "1")],
    ],
)
async def test_an_impossible_value_is_refused_by_name(start, path, field, value):
    client = await start()
    assert field in await refused(client, path, json.dumps(body(path) | {field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            ("number", value)
            for value in ("", "4" * 11, "4" * 20, "4111 1111 1111 1111", "٤" * 16, "411111111111111\0", 4111111111111111)
        ],
        *[("expiryMonth", value) for value in ("", "0", "00", "13", "1x", "-1")],
        *[("expiryYear", value) for value in ("", "3", "20300", "20x0")],
        *[("cvv", value) for value in ("", "12", "12345", "12x")],
        ("holderName", "x" * 256),
        ("pin", "1234"),
    ],
)
async def test_impossible_card_data_is_refused_by_name_and_not_repeated(start, field, value):
    client = await start()
    sentence = await refused(client, "/card/charges", json.dumps(body("/card/charges") | {"card": CARD | {field: value}}))
    assert field in sentence
    assert "4111" not in sentence


@pytest.mark.parametrize("size", [256 * 1024, 2_000_000])
@pytest.mark.parametrize("path", [*BODIES, *LATER, "/merchant/webhooks/m"])
async def test_a_huge_body_is_refused(start, path, size):
    client = await start()
    status, answer, _ = await client.call("POST", path, data=io.BytesIO(b'{"x":"' + b"x" * size + b'"}'))
    assert (status, answer["code"]) == (413, "too_large")
    assert await client.journal() == []


@pytest.mark.parametrize("reference", ["a%20b", "a%2Fb", "%00", "a" * 65, "%F0%9F", "..%2f..", "%25"])
async def test_an_impossible_reference_in_a_path_is_refused(start, reference):
    client = await start()
    for method, path in (("GET", f"/card/charges/{reference}"), ("POST", f"/card/charges/{reference}/reverse")):
        status, answer = await raw(client.url, method, path)
        assert (status, answer["code"]) in [(400, "invalid_request"), (404, "unknown_path")]
    assert await client.journal() == []


@pytest.mark.parametrize(
    "path",
    [
        "/card",
        "/card/",
        "/card/charges/",
        "/card/charges/a/b",
        "/card/charges/a/reverse/b",
        "/x",
        "/%00",
        "//",
        "/é",
        "/cards/charges",
    ],
)
async def test_an_unknown_path_is_refused(start, path):
    client = await start()
    for method in ("GET", "POST", "PUT"):
        status, answer = await raw(client.url, method, path)
        assert status in (400, 404, 405)
        assert answer["code"] in ("unknown_path", "invalid_request", "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/card/charges", "POST"),
        ("DELETE", "/card/charges/ref", "GET"),
        ("GET", "/upi/payments/ref/reverse", "POST"),
        ("PUT", "/bank/pages/x", "GET, POST"),
        ("GET", "/merchant/webhooks/m", "POST"),
        ("POST", "/journal", "GET"),
        ("GET", "/admin/timeline", "POST"),
        ("PROPFIND", "/health", "GET"),
    ],
)
async def test_an_unknown_method_is_refused_and_told_the_right_ones(start, method, path, allow):
    client = await start()
    status, answer, headers = await client.call(method, path)
    assert (status, answer["code"], headers["Allow"]) == (405, "method_not_allowed", allow)


async def raw(url: str, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """Sends a path exactly as given: a client library would tidy it up."""
    return await sent(
        url, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    )


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"POST /card/charges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nnot a chunk\r\n",
        b"POST /card/charges HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"POST /bank/pages/x HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"POST /merchant/webhooks/x HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"POST /card/charges HTTP/1.1\r\nHost: x\r\nExpect: cookies\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    ],
)
async def test_what_is_not_even_http_is_refused(start, request_bytes):
    client = await start()
    status, answer = await sent(client.url, request_bytes)
    assert status in range(400, 500)
    assert set(answer) == {"error", "code"}


async def sent(url: str, request_bytes: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(request_bytes)
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(answer)
