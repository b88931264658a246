"""Listing transactions as a merchant's developer does: by offset with a total, by cursor, filtered; and what is refused."""

import base64
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio

from tests.gateway.api.conftest import KEYS, Site

OTHER = KEYS["merchant_2"]
LIST, OF_MERCHANT = "/api/transactions", "/api/transactions/merchant/merchant_123"


class Filled(NamedTuple):
    site: Site
    ids: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(shared_site: Site) -> Filled:
    """One for all tests that only ask."""
    return Filled(shared_site, await fill(shared_site))


async def fill(site: Site) -> list[str]:
    """Two card payments, one that is declined, one by UPI that waits, and a refund of the first. Transaction ids, the newest first."""
    first, second = await site.pay(), await site.pay()
    site.provider.status, site.provider.code = "declined", "05"
    declined = await site.pay()
    waiting = await site.pay("upi")
    refund = (await site.post("/api/refunds/process", {"paymentID": first["paymentID"], "amount": 250})).json["data"]
    return [made["transactionID"] for made in (refund, waiting, declined, second, first)]


async def ask(site: Site, path: str = LIST, **query: Any) -> tuple[list[str], dict[str, Any]]:
    """(transaction ids, pagination)"""
    answer = await site.request("GET", f"{path}?{urlencode(query)}")
    assert answer.status == 200, answer.body
    return [found["transactionID"] for found in answer.json["data"]], answer.json["pagination"]


@pytest.mark.asyncio(loop_scope="module")
async def test_transactions_are_listed_the_newest_first_with_their_total(filled: Filled):
    site, ids = filled
    assert await ask(site) == (ids, {"limit": 20, "offset": 0, "total": 5, "hasMore": False})
    assert await ask(site, merchantID="merchant_123") == await ask(site)
    assert await ask(site, OF_MERCHANT) == await ask(site)
    found, pagination = await ask(site, limit=2, offset=1)
    assert found == ids[1:3]
    assert pagination == {"limit": 2, "offset": 1, "total": 5, "hasMore": True, "nextCursor": pagination["nextCursor"]}
    assert await ask(site, limit=2, offset=7) == ([], {"limit": 2, "offset": 7, "total": 5, "hasMore": False})
    listed = (await site.get(LIST))[0]
    assert listed == await site.get(f"{LIST}/{ids[0]}")
    assert (listed["type"], listed["amount"], listed["status"], listed["paymentMethod"]) == ("refund", 250, "completed", "card")


async def test_a_walk_by_cursor_shows_all_and_nothing_that_came_meanwhile(site: Site):
    ids = await fill(site)
    found, pagination = await ask(site, OF_MERCHANT, limit=2, cursor="")
    assert "total" not in pagination
    while "nextCursor" in pagination:
        assert pagination["hasMore"]
        await site.pay()
        page, pagination = await ask(site, limit=2, cursor=pagination["nextCursor"])
        found += page
    assert found == ids
    assert not pagination["hasMore"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_cursor_of_a_page_by_offset_goes_on_behind_it(filled: Filled):
    site, ids = filled
    _, pagination = await ask(site, limit=3)
    assert (await ask(site, cursor=pagination["nextCursor"]))[0] == ids[3:]


@pytest.mark.asyncio(loop_scope="module")
async def test_filters_narrow_what_is_listed_and_counted(filled: Filled):
    site, (refund, waiting, declined, second, first) = filled
    assert await ask(site, type="refund") == ([refund], {"limit": 20, "offset": 0, "total": 1, "hasMore": False})
    assert (await ask(site, type="chargeback"))[0] == []
    assert (await ask(site, status="failed"))[0] == [declined]
    assert (await ask(site, status="completed", type="payment", cursor=""))[0] == [second, first]
    assert (await ask(site, method="upi"))[0] == [waiting]


async def test_a_period_includes_its_beginning_and_not_its_end(site: Site):
    await site.pay()
    created = (await site.get(LIST))[0]["createdAt"]
    at_ms = int(datetime.fromisoformat(created).timestamp() * 1000)
    just_after = datetime.fromtimestamp((at_ms + 1) / 1000, UTC).isoformat(timespec="milliseconds")
    for period, count in (
        ({"from": created}, 1),
        ({"from": just_after}, 0),
        ({"to": created}, 0),
        ({"from": created, "to": just_after}, 1),
        ({"from": "1969-12-31T23:59:59.999999Z", "to": "9999-12-31T23:59:59Z"}, 1),
    ):
        assert (await ask(site, **period))[1]["total"] == count, period
    unquoted = await site.request("GET", f"{LIST}?to=2020-01-01T00:00:00+05:30")  # the + arrives as a space
    assert (unquoted.status, unquoted.json["data"]) == (200, [])


@pytest.mark.asyncio(loop_scope="module")
async def test_other_merchants_see_nothing_and_learn_nothing(filled: Filled):
    site = filled.site
    answer = await site.request("GET", LIST, key=OTHER)
    assert (answer.json["data"], answer.json["pagination"]["total"]) == ([], 0)
    _, pagination = await ask(site, limit=1)
    stolen = await site.request("GET", f"{LIST}?cursor={pagination['nextCursor']}", key=OTHER)
    assert stolen.json["data"] == []
    for path in (f"{LIST}?merchantID={{}}", f"{LIST}/merchant/{{}}"):
        theirs, nobodys = [await site.request("GET", path.format(name), key=OTHER) for name in ("merchant_123", "merchant_9")]
        assert (theirs.status, theirs.json["code"]) == (403, "wrong_merchant")
        assert without_request(theirs.json) == without_request(nobodys.json)


def without_request(failure: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in failure.items() if name != "requestID"}


def sealed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


BAD: dict[str, tuple[str, str]] = {
    "limit 0": ("limit=0", "limit"),
    "limit 101": ("limit=101", "limit"),
    "limit in words": ("limit=ten", "limit"),
    "negative offset": ("offset=-1", "offset"),
    "endless offset": ("offset=10001", "offset"),
    "cursor and offset": ("cursor=&offset=0", "cursor"),
    "cursor of nobody": ("cursor=abc", "cursor"),
    "cursor with umlauts": (f"cursor={quote('ü')}", "cursor"),
    "cursor of another form": (f"cursor={sealed('1.2')}", "cursor"),
    "cursor out of range": (f"cursor={sealed('9' * 30 + '.' + 'a' * 32)}", "cursor"),
    "endless cursor": (f"cursor={'a' * 101}", "cursor"),
    "type": ("type=capture", "type"),
    "status": ("status=warning_closed", "status"),
    "method": ("method=cash", "method"),
    "date without time": ("from=2026-01-01", "from"),
    "time without offset": ("from=2026-01-01T00:00:00", "from"),
    "no such day": ("to=2026-02-30T00:00:00Z", "to"),
    "no such year": ("to=0000-01-01T00:00:00Z", "to"),
    "before the calendar": ("from=0001-01-01T00:00:00%2B05:00", "from"),
    "after the calendar": ("to=9999-12-31T23:59:59-00:01", "to"),
    "seconds of Unix": (f"to={int(time.time())}", "to"),
    "empty period": ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
    "twice": ("limit=1&limit=2", "limit"),
    "unknown": ("sort=amount", "sort"),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", [LIST, OF_MERCHANT])
@pytest.mark.parametrize("case", BAD)
async def test_a_bad_query_is_refused_and_told_which_parameter(shared_site: Site, case: str, path: str):
    query, param = BAD[case]
    answer = await shared_site.request("GET", f"{path}?{query}")
    assert (answer.status, answer.json["param"]) == (400, param), answer.body
