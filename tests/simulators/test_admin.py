import asyncio
import csv
import io
from datetime import UTC, datetime
from xml.etree import ElementTree

import msgspec
import pytest


async def charged(start, *orders: str):
    client = await start()
    for order in orders:
        body = {"reference": f"ref_{order}", "amount": 1000, "currency": "INR", "merchantID": "m & co", "orderID": order}
        card = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
        status, _, _ = await client.call("POST", "/card/charges", json=body | {"card": card})
        assert status == 200
    return client


async def day_of(client) -> str:
    """The day on which its first charge was settled."""
    return datetime.fromtimestamp((await client.journal())[0]["at"] / 1000, UTC).date().isoformat()


async def test_the_journal_can_be_searched(start):
    client = await charged(start, "X", "Y")
    await client.session.get(f"{client.url}/card/charges/ref_X")
    searches = {
        "order=X&operation=create": [1],
        "reference=ref_X": [1, 3],
        "merchant=m%20%26%20co&limit=1": [1],
        "until=1": [],
        "since=1": [2, 3],
    }
    for search, expected in searches.items():
        async with client.session.get(f"{client.url}/journal?{search}") as answer:
            assert answer.status == 200
            assert [msgspec.json.decode(line)["seq"] for line in (await answer.read()).splitlines()] == expected, search


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/journal?since=-1", "since"),
        ("/journal?since=1&since=2", "since"),
        ("/journal?provider=visa", "provider"),
        ("/journal?operation=Create", "operation"),
        ("/journal?refrence=X", "refrence"),
        ("/journal?reference=", "reference"),
        ("/journal?reference=%00", "reference"),
        ("/journal?limit=0", "limit"),
        ("/journal?from=yesterday", "from"),
        ("/journal?until=1e30", "until"),
        ("/admin/balance?limit=1", "limit"),
        ("/admin/balance?currency=inr", "currency"),
        ("/settlements/card/2024-02-30", "2024-02-30"),
        ("/settlements/card/2024-02-03?format=mt940", "format"),
        ("/settlements/card/2024-02-03?format=camt.053", "currency"),
        ("/settlements/card/2024-02-03?fee_bps=2.5", "fee_bps"),
        ("/settlements/card/2024-02-03?breaks=lost:1", "lost"),
        ("/settlements/card/2024-02-03?breaks=late:1&seed=-1", "seed"),
        ("/settlements/card/2024-02-03/answers?format=x", "format"),
    ],
)
async def test_a_bad_query_is_refused_with_field_and_reason(start, path, field):
    client = await start()
    status, body, _ = await client.call("GET", path)
    assert (status, body["code"]) == (400, "invalid_request")
    assert field in body["error"]


async def test_a_query_of_bytes_that_are_no_text_is_refused(start):
    client = await start()
    status, text = await client.raw(b"GET /journal?reference=\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, "invalid_request" in text) == (400, True)


async def test_a_misspelt_field_gets_a_hint(start):
    client = await start()
    _, body, _ = await client.call("GET", "/journal?refrence=X")
    assert "did you mean 'reference'?" in body["error"]


async def test_expectations_are_verified(start):
    client = await charged(start, "X", "Y")
    expect = [{"provider": "card", "operation": "create", "order": "X", "moved": 1000, "count": 1}]
    status, body, _ = await client.call("POST", "/admin/verify", json={"expect": expect})
    assert (status, body) == (200, {"ok": True, "entries": 2, "failures": []})
    expect[0]["order"] = "Z"
    _, body, _ = await client.call("POST", "/admin/verify", json={"expect": expect, "inOrder": True})
    [failure] = body["failures"]
    assert (body["ok"], failure["found"], failure["wanted"], failure["nearest"][0]["orderID"]) == (False, 0, 1, "Y")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "expect"),
        ({"expect": []}, "expect"),
        ({"expect": [{"order": "X"}] * 101}, "expect"),
        ({"expect": [{"ordr": "X"}]}, "expect[0]"),
        ({"expect": [{"count": -1}]}, "expect[0].count"),
        ({"expect": [{"count": {"min": 2, "max": 1}}]}, "expect[0].count"),
        ({"expect": [{"moved": 1.5}]}, "expect[0].moved"),
    ],
)
async def test_impossible_expectations_are_refused_with_field_and_reason(start, body, where):
    client = await start()
    status, answer, _ = await client.call("POST", "/admin/verify", json=body)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert where in answer["error"]


async def test_one_charge_and_then_a_refund_is_found_in_verification_balance_and_settlement(start):
    client = await charged(start, "X")
    refund = {"reference": "refund_1", "amount": 500, "currency": "INR"}
    assert (await client.call("POST", "/card/charges/ref_X/refunds", json=refund))[0] == 200
    expect = [
        {"provider": "card", "operation": "create", "order": "X", "moved": 1000, "count": 1},
        {"operation": "refund", "order": "X", "moved": -500, "count": {"min": 1, "max": 1}},
    ]
    _, verdict, _ = await client.call("POST", "/admin/verify", json={"expect": expect, "inOrder": True})
    assert verdict == {"ok": True, "entries": 2, "failures": []}
    assert (await client.call("GET", "/admin/balance?order=X"))[1] == {"balance": {"INR": 500}}
    async with client.session.get(f"{client.url}/settlements/card/{await day_of(client)}") as answer:
        rows = list(csv.DictReader(io.StringIO(await answer.text(), newline="")))
    assert [(row["subject"], row["type"], row["gross"]) for row in rows] == [
        ("", "charge", "1000"),
        ("refund_1", "refund", "-500"),
    ]


async def test_a_balance_adds_up_what_moved(start):
    client = await charged(start, "X", "Y")
    await client.reverse("/card/charges/ref_X")
    balances = {"order=Y": 1000, "reference=ref_X": 0, "merchant=m%20%26%20co": 1000}
    assert {query: (await client.call("GET", f"/admin/balance?{query}"))[1]["balance"]["INR"] for query in balances} == balances
    assert (await client.call("GET", "/admin/balance?order=Z"))[1] == {"balance": {}}


async def test_a_settlement_file_of_today_can_be_fetched_as_csv_and_as_camt(start):
    client = await charged(start, "X", "Y")
    day = await day_of(client)
    async with client.session.get(f"{client.url}/settlements/card/{day}?fee_bps=200") as answer:
        rows = list(csv.DictReader(io.StringIO(await answer.text(), newline="")))
        assert answer.headers["Content-Type"].startswith("text/csv")
    assert [(row["reference"], row["net"], row["merchantID"]) for row in rows] == [
        ("ref_X", "980", "m & co"),
        ("ref_Y", "980", "m & co"),
    ]
    async with client.session.get(f"{client.url}/settlements/card/{day}?format=camt.053&currency=INR") as answer:
        document = ElementTree.fromstring(await answer.text())
        assert f"card-{day}.xml" in answer.headers["Content-Disposition"]
    assert [element.text for element in document.iterfind(".//{*}EndToEndId")] == ["ref_X", "ref_Y"]


async def test_the_answer_key_is_that_of_the_file_with_the_same_query(start):
    client = await charged(start, *"ABCDEF")
    day = await day_of(client)
    query = "breaks=missing:2&seed=7"
    async with client.session.get(f"{client.url}/settlements/card/{day}?{query}") as answer:
        there = {row["reference"] for row in csv.DictReader(io.StringIO(await answer.text(), newline=""))}
    _, key, _ = await client.call("GET", f"/settlements/card/{day}/answers?{query}")
    assert there | {one["reference"] for one in key["answers"]} == {f"ref_{order}" for order in "ABCDEF"}
    assert len(there) == 4


async def test_a_provider_that_settles_nothing_has_no_files(start):
    client = await start()
    assert (await client.call("GET", "/settlements/merchant/2024-02-03"))[0] == 404


async def test_a_long_journal_does_not_keep_others_waiting_while_it_is_read(start):
    client = await charged(start, "X")
    await asyncio.gather(*[client.call("GET", "/card/charges/ref_X") for _ in range(2000)])
    order: list[str] = []

    async def named(name: str, path: str) -> None:
        await client.call("GET", path)
        order.append(name)

    await asyncio.gather(named("balance", "/admin/balance?merchant=nobody"), *[named("health", "/health") for _ in range(3)])
    assert order[-1] == "balance"
