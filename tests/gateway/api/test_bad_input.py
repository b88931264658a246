"""Bad input: the promised 4xx, the field by name, and nothing stored."""

import asyncio
import io
import json
from typing import Any

import pytest
import structlog

from gateway.api import wire
from tests.gateway.api.conftest import CARD, GOOD, MISSING, YEAR, Site, changed
from tests.gateway.doubles import NUMBER, PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

Row = tuple[str, str, Any, str, str | None]  # method, path of the field, its value, code, param

INVALID = "invalid_request"


def rows(method: str, path: str, values: list[Any], code: str = INVALID, param: str | None = None) -> list[Row]:
    return [(method, path, value, code, path if param is None else param or None) for value in values]


REQUIRED = (
    *(
        "merchantID",
        "amount",
        "currency",
        "paymentMethod",
        "customerInfo",
        "orderID",
        "customerInfo.email",
        "customerInfo.phone",
    ),
    *("cardDetails.number", "cardDetails.expiryMonth", "cardDetails.expiryYear", "cardDetails.cvv"),
)

FIELDS: list[Row] = [
    *rows("card", "amount", ["1000", 10.5, 1e3 + 0.1, 0, -0, -1, -(10**30), 10**12, 10**30, True, None, [1000], {}]),
    *rows("card", "amount", [float("nan"), float("inf")], "invalid_json", ""),
    *rows("card", "currency", ["XYZ", "inr", "", "INR\n", "₹"], "unsupported_currency"),
    *rows("card", "currency", [None, 356, ["INR"]]),
    *rows("upi", "currency", ["USD"], "unsupported_currency"),
    *rows("netbanking", "currency", ["JPY"], "unsupported_currency"),
    *rows("card", "paymentMethod", ["cash", "CARD", "", None, 1]),
    *rows("card", "merchantID", ["", "a b", "merchant_123\n", "m" * 65, None, 123]),
    *rows("card", "orderID", ["", "o" * 65, "order-1\n", "order 1", "Bestellung-ü", "a\0b", None, 5]),
    *rows("card", "customerInfo", [None, "me", []]),
    *rows("card", "customerInfo.email", ["", "me", "@example.com", "me@", "a b@example.com", "me@example.com\n", "m" * 65 + "@x.y", None]),
    *rows("card", "customerInfo.phone", ["", "call me", "123", "+919876543210\n", "1" * 30, 919876543210]),
    *rows("card", "customerInfo.country", ["in", "IND", "IN\n"]),
    *rows("card", "customerInfo.ip", ["1" * 46]),
    *rows("card", "customerInfo.id", ["", "i" * 257]),
    *rows("card", "cardDetails.number", ["4242424242424241", "4111111111111112"], "invalid_card_number"),
    *rows("card", "cardDetails.number", ["", "4111", "4" * 20, NUMBER + "\n", " " + NUMBER, "4111 1111 1111 1111", int(NUMBER), None]),
    *rows("card", "cardDetails.number", ["٤" * 16, "4111-1111-1111-1111", "abcdabcdabcdabcd"]),
    *rows("card", "cardDetails.expiryMonth", ["0", "00", "13", "1\n", "", "Jan", 12, None]),
    *rows("card", "cardDetails.expiryYear", ["30", "20300", "", "year", f"{YEAR}\n", YEAR]),
    *rows("card", "cardDetails.expiryYear", [str(YEAR - 1), "2000", "0000"], "expired_card"),
    *rows("card", "cardDetails.expiryYear", [str(YEAR + 21), "9999"], "invalid_expiry"),
    *rows("card", "cardDetails.cvv", ["", "12", "12345", "abc", "123\n", 123, None]),
    *rows("card", "cardDetails.holderName", ["", "n" * 257, 5]),
    *rows("card", "cardDetails", [None], "missing_field"),
    *rows("card", "cardDetails", ["4111", [CARD], 5]),
    *rows("card", "upiDetails", [{"flow": "qr"}]),
    *rows("upi", "cardDetails", [CARD]),
    *rows("upi", "upiDetails.vpa", [None, MISSING], "missing_field"),
    *rows("upi", "upiDetails.vpa", ["", "success", "@upi", "success@", "a b@upi", "success@upi\n", "v" * 65 + "@upi", 5]),
    *rows("upi", "upiDetails.flow", ["push", "", None]),
    *rows("upi", "upiDetails", [None, MISSING], "missing_field"),
    *rows("netbanking", "netbankingDetails", [None, MISSING], "missing_field"),
    *rows("netbanking", "netbankingDetails.bankCode", ["", "hdfc", "HDF", "H" * 12, "HDFC0000001\n", 5, None]),
    *rows("upi", "captureMethod", ["manual"], "unsupported_capture_method"),
    *rows("netbanking", "captureMethod", ["manual"], "unsupported_capture_method"),
    *rows("card", "captureMethod", ["later", None]),
    *rows("card", "returnUrl", ["", "shop.example", "ftp://shop.example", "javascript:alert(1)", "https://"]),
    *rows("card", "returnUrl", ["https://a b", "https://a\n", "https://a/<script>", "https://me@a", "https://a/" + "a" * 2001]),
    *rows("card", "returnUrl", ["https://[x/", "https://]/", "https://[]/", "https://[1.2.3.4]/", "https://a:b/", "https://a:123456/"]),
    *rows("card", "metadata", ["text", ["a"], {str(n): "x" for n in range(51)}]),
    *rows("card", "metadata", [{"k": 5}, {"k": None}, {"k": {"deep": "x"}}, {"k": "v" * 513}], param="metadata[...]"),
    *rows("card", "metadata", [{"": "x"}, {"k" * 65: "x"}], param="metadata"),
    *rows("card", "metadata", [{"a\0": "x"}, {"a": "\0"}], param=""),
    *rows("card", "cardDetails.holderName", ["A\0B"], param=""),
    *[row for path in REQUIRED for row in rows("card", path, [MISSING])],
    *rows("card", "colour", ["blue"]),
    *rows("card", "cardDetails.pin", ["1234"]),
    *rows("card", "customerInfo.age", [30]),
    *rows("card", "Amount", [1000]),
]  # fmt: skip


async def refused(site: Site, body: Any, status: int, code: str, param: str | None = None, **options: Any) -> dict[str, Any]:
    """Sends it, and sees that it was refused like this, that no provider heard of it, and that nothing was stored."""
    before = await site.totals()
    answer = await site.process(body, **options)
    assert (answer.status, answer.json["code"], answer.json.get("param")) == (status, code, param), answer.body
    assert answer.json["success"] is False
    assert answer.json["requestID"] == answer.headers["X-Request-ID"]
    assert answer.headers["Content-Type"].startswith("application/json")
    assert await site.totals() == before
    assert site.provider.requests == []
    return answer.json


def name_of(value: object) -> str:
    return "MISSING" if value is MISSING else repr(value)[:30]


@pytest.mark.parametrize(("method", "path", "value", "code", "param"), FIELDS, ids=name_of)
async def test_a_bad_field_is_refused_by_name(
    shared_site: Site, method: str, path: str, value: Any, code: str, param: str | None
):
    said = await refused(shared_site, changed(method, path, value), 400, code, param)
    assert param is None or said["error"].startswith(f"{param}: ")


GOOD_BYTES = json.dumps(GOOD["card"]).encode()
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b" ", "invalid_json"),
        (b"{", "invalid_json"),
        (GOOD_BYTES[:-1], "invalid_json"),
        (GOOD_BYTES + b"x", "invalid_json"),
        (GOOD_BYTES[:-1] + b",}", "invalid_json"),
        (GOOD_BYTES.replace(b'"', b"'"), "invalid_json"),
        (b"\xef\xbb\xbf" + GOOD_BYTES, "invalid_json"),
        (GOOD_BYTES.decode().encode("utf-16"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"\xff\xfe"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"\xed\xa0\x80"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"\\ud800"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"\\udc00\\ud800"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"a\x00b"), "invalid_json"),
        (GOOD_BYTES.replace(b"order-1", b"a\nb"), "invalid_json"),
        (GOOD_BYTES.replace(b"1000", b"+1000"), "invalid_json"),
        (GOOD_BYTES.replace(b"1000", b"1_000"), "invalid_json"),
        (DEEP[:60_000], INVALID),
        (b'{"metadata":' + b'{"a":' * 10_000, INVALID),
        (b"null", INVALID),
        (b"[]", INVALID),
        (b'"text"', INVALID),
        (b"5", INVALID),
    ],
    ids=name_of,
)
async def test_a_body_that_is_no_document_of_ours_is_refused(shared_site: Site, body: bytes, code: str):
    answer = await shared_site.process(body)
    await refused(shared_site, body, 400, code, answer.json.get("param"))


@pytest.mark.parametrize(
    "number", ["1e3", "1E3", "1000.0", "1000.5", "1e30", "1E-3", "1e400", "-1e400", "-0", "-0.0", "0x3e8", "1" + "0" * 5_000]
)
async def test_an_amount_in_odd_notation_is_refused(shared_site: Site, number: str):
    await refused(shared_site, GOOD_BYTES.replace(b"1000", number.encode()), 400, INVALID, "amount")


@pytest.mark.parametrize(
    "path", ["paymentMethod", "currency", "captureMethod", "cardDetails.cvv", "customerInfo.country", NUMBER]
)
@pytest.mark.parametrize("spelling", [NUMBER, "4111 1111 1111 1111", "4111-1111-1111-1111"])
async def test_a_card_number_in_the_wrong_place_is_not_repeated(shared_site: Site, path: str, spelling: str):
    answer = await shared_site.process(changed("card", path, spelling))
    assert answer.status == 400
    assert spelling.encode() not in answer.body
    assert NUMBER.encode() not in answer.body


@pytest.mark.parametrize("path", ["orderID", "customerInfo.phone", "customerInfo.id", "cardDetails.holderName", "metadata"])
async def test_a_card_number_that_would_be_kept_in_the_clear_is_refused(shared_site: Site, path: str):
    value = {"note": f"paid with {NUMBER}"} if path == "metadata" else NUMBER
    await refused(shared_site, changed("card", path, value), 400, "card_data_misplaced")


@pytest.mark.parametrize(
    "spelling", ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111.1111.1111", r"4\u003111111111111111"]
)
async def test_a_card_number_is_recognised_however_it_is_spelled(shared_site: Site, spelling: str):
    assert NUMBER == "4111111111111111"
    told = changed("card", "metadata", {"note": "paid with HERE"})
    body = json.dumps(told).replace("HERE", spelling).encode()
    await refused(shared_site, body, 400, "card_data_misplaced")


async def test_a_card_number_is_no_idempotency_key(shared_site: Site):
    headers = {"Idempotency-Key": f"order-{NUMBER}"}
    await refused(shared_site, GOOD["card"], 400, "card_data_misplaced", "Idempotency-Key", headers=headers)


async def test_bottomless_nesting_is_refused_whatever_its_size(shared_site: Site):
    await refused(shared_site, DEEP, 413, "request_too_large")
    await refused(shared_site, DEEP[:1_000], 400, INVALID)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(shared_site: Site, size: int, chunked: bool):
    async def pieces():
        for _ in range(0, size, 16 * 1024):
            yield b" " * 16 * 1024
        yield b" "

    before = await shared_site.totals()
    headers = {"Content-Type": "application/json"}
    data: Any = pieces() if chunked else io.BytesIO(GOOD_BYTES.ljust(size))
    answer = await shared_site.request("POST", "/api/payments/process", data=data, headers=headers)
    assert (answer.status, answer.json["code"]) == (413, "request_too_large")
    assert await shared_site.totals() == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data", ";", "json"]
)
async def test_another_content_type_is_refused(shared_site: Site, kind: str):
    await refused(shared_site, GOOD_BYTES, 415, "unsupported_media_type", headers={"Content-Type": kind})


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "weird"])
async def test_a_compressed_body_is_refused_unread(shared_site: Site, encoding: str):
    body = b"\x1f\x8b\x08\x00 no such thing"
    await refused(shared_site, body, 415, "unsupported_media_type", headers={"Content-Encoding": encoding})


AUTHORIZED = b"Host: x\r\nAuthorization: Bearer sk_test_merchant_123\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: two\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        b"bad header\r\n\r\n",
        b"\x00: x\r\n\r\n",
    ],
    ids=name_of,
)
async def test_broken_http_is_the_callers_fault(shared_site: Site, rest: bytes):
    before = await shared_site.totals()
    answer = await shared_site.raw(b"POST /api/payments/process HTTP/1.1\r\n" + AUTHORIZED + rest)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert b"Traceback" not in answer
    assert await shared_site.totals() == before


@pytest.mark.parametrize("framing", [b"Content-Length: 500\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_caller_who_hangs_up_in_the_middle_of_a_body_is_no_fault_of_ours(shared_site: Site, framing: bytes):
    before = await shared_site.totals()
    host, port = shared_site.url.removeprefix("http://").split(":")
    with structlog.testing.capture_logs() as logs:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/payments/process HTTP/1.1\r\nExpect: 100-continue\r\n" + framing + AUTHORIZED + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"  # the handler waits for the body
        writer.write(b"2\r\n{}\r\n")
        writer.close()
        await writer.wait_closed()
        for _ in range(3):
            await shared_site.totals()
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert await shared_site.totals() == before


async def test_a_body_that_does_not_come_is_not_waited_for_long(shared_site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "BODY_S_MAX", 0.05)
    before = await shared_site.totals()
    host, port = shared_site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/payments/process HTTP/1.1\r\n" + AUTHORIZED + b"Content-Length: 500\r\n\r\n{")
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.readuntil(b"}")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["code"] == "request_timeout"
    assert await shared_site.totals() == before


@pytest.mark.parametrize(
    "headers",
    [
        [""],
        ["k" * 256],
        ['""'],
        ['"' + "k" * 256 + '"'],
        ["two words"],
        ['"half'],
        ['a"b'],
        ["clé"],
        ["a", "a"],
        ["a", "b"],
        ["\x7f"],
    ],
    ids=name_of,
)
async def test_an_idempotency_key_that_is_none_is_refused(shared_site: Site, headers: list[str]):
    lines = "".join(f"Idempotency-Key: {value}\r\n" for value in headers).encode("latin-1")
    before = await shared_site.totals()
    head = b"POST /api/payments/process HTTP/1.1\r\n" + AUTHORIZED + lines
    answer = await shared_site.raw(head + b"Content-Length: %d\r\n\r\n" % len(GOOD_BYTES) + GOOD_BYTES)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer[:200]
    said = json.loads(answer.split(b"\r\n\r\n")[1])
    if said["code"] != "invalid_http":  # which is what the HTTP parser itself refuses
        assert (said["code"], said["param"]) == ("invalid_idempotency_key", "Idempotency-Key")
    assert await shared_site.totals() == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api", 404, "not_found"),
        ("POST", "/api/payments", 404, "not_found"),
        ("POST", "/api/payments/process/", 404, "not_found"),
        ("POST", "/api//payments/process", 404, "not_found"),
        ("POST", "/API/PAYMENTS/PROCESS", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("GET", "/api/payments/process", 405, "method_not_allowed"),
        ("GET", "/api/settlements/process", 405, "method_not_allowed"),
        ("PUT", "/api/payments/process", 405, "method_not_allowed"),
        ("OPTIONS", "/api/payments/process", 405, "method_not_allowed"),
        ("PROPFIND", "/api/payments/process", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("DELETE", "/api/payments/pay_1/status", 405, "method_not_allowed"),
        ("GET", "/api/webhooks/payment", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods(shared_site: Site, method: str, path: str, status: int, code: str):
    answer = await shared_site.request(method, path)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("kind", ["payments/{}/status", "transactions/{}"])
@pytest.mark.parametrize(
    "odd", ["%00", "%ED%A0%80", "%FF", "..%2F..", "%20", "x" * 3000, "'%20OR%201=1--", "%E2%82%B9", "txn_%00"]
)
async def test_an_odd_id_is_not_found(shared_site: Site, kind: str, odd: str):
    head = f"GET /api/{kind.format(odd)} HTTP/1.1\r\n".encode() + AUTHORIZED
    answer = await shared_site.raw(head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert json.loads(answer.split(b"\r\n\r\n")[1])["code"] == "not_found"


async def test_a_value_that_is_none_of_the_known_ones_is_answered_with_these(shared_site: Site):
    asked = await shared_site.request("GET", "/api/transactions?type=payments")
    assert (asked.status, asked.json["param"]) == (400, "type")
    assert asked.json["error"].endswith("known are chargeback, payment, refund")
    sent = await shared_site.process(changed("upi", "upiDetails.flow", "fax"))
    assert (sent.status, sent.json["param"]) == (400, "upiDetails.flow")
    assert sent.json["error"].endswith("known are collect, intent, qr")
