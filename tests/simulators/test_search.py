import msgspec
import pytest

from simulators.journal import BLOCK_WEIGHT, Entry, Journal
from simulators.search import Search, find


class State(msgspec.Struct, frozen=True):
    status: str
    amount: int = 1000
    currency: str = "INR"
    responseCode: str | None = "00"


@pytest.fixture(scope="module")
def journal() -> Journal:
    """Three blocks of many kinds of entries, an hour apart."""
    made = Journal()
    for index in range(3 * BLOCK_WEIGHT - 5):
        provider = ("card", "upi", "bank", "merchant")[index % 4]
        made.append(
            Entry(
                index * 3_600_000,
                provider,
                ("create", "status", "refund")[index % 3],
                f"ref_{index // 2}",
                1,
                State(("approved", "declined")[index % 5 == 0]) if index % 7 else None,
                moved=(index % 3 - 1) * 1000,
                fault="response_lost" if index % 11 == 0 else None,
                fault_id="card.create.outage" if index % 11 == 0 else None,
                merchant=f'mérchant "{index % 6}"',
                order=f"order_{index // 3}" if index % 2 else None,
                subject="refund_9" if index % 13 == 0 else None,
            )
        )
    return made


QUERIES = {
    "provider": ({"provider": "upi"}, lambda row: row["provider"] == "upi"),
    "operation": ({"operation": "refund"}, lambda row: row["operation"] == "refund"),
    "reference": ({"reference": "ref_1"}, lambda row: row["reference"] == "ref_1"),
    "merchant": ({"merchant": 'mérchant "4"'}, lambda row: row["merchantID"] == 'mérchant "4"'),
    "order": ({"order": "order_100"}, lambda row: row.get("orderID") == "order_100"),
    "subject": ({"subject": "refund_9"}, lambda row: row.get("subject") == "refund_9"),
    "status": ({"status": "declined"}, lambda row: row["status"] == "declined"),
    "fault": ({"fault": "response_lost"}, lambda row: row["fault"] == "response_lost"),
    "faultID": ({"fault": "card.create.outage"}, lambda row: row.get("faultID") == "card.create.outage"),
    "moved": ({"moved": -1000}, lambda row: row["moved"] == -1000),
    "amount": ({"amount": 1000, "currency": "INR"}, lambda row: row["amount"] == 1000),
    "window": ({"from": 7_200_000, "until": 36_000_000}, lambda row: 7_200_000 <= row["at"] < 36_000_000),
    "since": ({"since": 700}, lambda row: row["seq"] > 700),
    "two": ({"provider": "card", "status": "approved"}, lambda row: (row["provider"], row["status"]) == ("card", "approved")),
    "everything": ({}, lambda row: True),
    "nothing": ({"reference": "ref"}, lambda row: False),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_search_answers_exactly_the_entries_that_match_as_they_stand(journal, name):
    query, matches = QUERIES[name]
    search = msgspec.convert(query, Search)
    lines = b"".join(journal.chunks()).splitlines()
    expected = [line for line in lines if matches(msgspec.json.decode(line))]
    assert b"".join(find(journal.chunks(search.since), search)).splitlines() == expected
    assert bool(expected) == (name != "nothing")


@pytest.mark.parametrize("limit", [1, BLOCK_WEIGHT, BLOCK_WEIGHT + 1, 10**6])
def test_a_limit_answers_the_first_matches_and_reads_no_further(journal, limit):
    steps = list(find(journal.chunks(), Search(limit=limit)))
    assert b"".join(steps) == b"".join(b"".join(journal.chunks()).splitlines(keepends=True)[:limit])
    assert len(steps) == min(3, -(-limit // BLOCK_WEIGHT))


def test_a_search_steps_once_a_chunk_also_where_nothing_is_found(journal):
    assert list(find(journal.chunks(), Search(reference="nobody"))) == [b"", b"", b""]
