import pytest

from simulators.journal import CHUNK_ENTRIES, Entry, Journal


async def test_the_journal_is_numbered_without_gaps_and_says_what_happened(start, ear):
    client = await start()
    await client.card("ref", amount=500, number="4000000000009995")
    await client.upi("ref", ear.url)
    await ear.next()
    entries = await client.journal()
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    first = entries[0]
    assert first | {"at": 0} == {
        "seq": 1,
        "at": 0,
        "provider": "card",
        "operation": "create",
        "reference": "ref",
        "attempt": 1,
        "status": "declined",
        "responseCode": "51",
        "amount": 500,
        "currency": "INR",
        "moved": 0,
        "delayMs": 0,
        "fault": None,
    }


async def test_an_entry_shows_the_charge_as_it_was_then(start):
    client = await start()
    await client.card("ref")
    await client.reverse("/card/charges/ref")
    assert [entry["status"] for entry in await client.journal()] == ["approved", "reversed"]


async def test_since_answers_what_came_after(start):
    client = await start()
    for index in range(3):
        await client.card(f"ref_{index}")
    assert [[entry["seq"] for entry in await client.journal(since)] for since in (0, 2, 3, 99)] == [[1, 2, 3], [3], [], []]


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "٣", "9" * 5000, ""])
async def test_an_impossible_since_is_refused(start, since):
    client = await start()
    status, body, _ = await client.call("GET", "/journal", params={"since": since})
    assert (status, body["code"]) == (400, "invalid_request")


async def test_a_journal_of_many_chunks_arrives_whole(start):
    client = await start()
    for index in range(3):
        await client.card(f"ref_{index}")
    count = 3 * CHUNK_ENTRIES + 1
    for _ in range(count - 3):
        await client.session.get(f"{client.url}/card/charges/ref_0")
    assert [entry["seq"] for entry in await client.journal()] == list(range(1, count + 1))


def test_a_journal_is_encoded_in_chunks_up_to_where_it_ended_when_reading_began():
    journal = Journal()

    def grow(count: int) -> None:
        for _ in range(count):
            journal.append(Entry(1, "card", "status", "ref", 1, None))

    grow(2 * CHUNK_ENTRIES + 1)
    chunks = journal.chunks(since=1)
    sizes = [next(chunks).count(b"\n")]
    grow(10)
    sizes += [chunk.count(b"\n") for chunk in chunks]
    assert sizes == [CHUNK_ENTRIES, CHUNK_ENTRIES]
