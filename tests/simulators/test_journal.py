import gc
import os
import weakref

import msgspec
import pytest

from simulators.journal import BLOCK_WEIGHT, BODY_BYTES_PER_WEIGHT, Entry, Journal, Webhook, decode_rows, temporary_file


class State:
    """What an entry takes its state from; not a struct, so that it can be seen to go away."""

    def __init__(self, amount: int = 1000) -> None:
        self.status, self.amount, self.currency = "approved", amount, "INR"


def grow(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.append(Entry(1, "card", "status", f"ref_{len(journal) + 1}", 1, State()))


def numbers(chunks) -> list[int]:
    return [row.seq for chunk in chunks for row in decode_rows(chunk)]


def line(entry: Entry) -> dict:
    journal = Journal()
    journal.append(entry)
    [chunk] = journal.chunks()
    return msgspec.json.decode(chunk)


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
        "providerID": first["providerID"],
        "merchantID": "m",
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


@pytest.mark.parametrize("query", ["amount=null", "moved=null", "provider=null", "limit=null"])
async def test_null_in_a_query_is_refused_and_does_not_mean_everything(start, query):
    client = await start()
    status, body, _ = await client.call("GET", f"/journal?{query}")
    assert (status, body["error"].partition(":")[0]) == (400, query.partition("=")[0])


async def test_a_reference_may_be_called_null(start):
    client = await start()
    for reference in ("null", "other"):
        await client.card(reference)
    async with client.session.get(f"{client.url}/journal?reference=null") as answer:
        assert (await answer.read()).count(b"\n") == 1


async def test_a_journal_of_many_chunks_arrives_whole(start):
    client = await start()
    for index in range(3):
        await client.card(f"ref_{index}")
    count = 3 * BLOCK_WEIGHT + 1
    for _ in range(count - 3):
        await client.session.get(f"{client.url}/card/charges/ref_0")
    assert [entry["seq"] for entry in await client.journal()] == list(range(1, count + 1))


def test_a_journal_is_read_block_by_block_up_to_where_it_ended_when_reading_began():
    journal = Journal()
    grow(journal, 2 * BLOCK_WEIGHT + 1)
    chunks = journal.chunks(since=1)
    sizes = [next(chunks).count(b"\n")]
    grow(journal, BLOCK_WEIGHT)
    sizes += [chunk.count(b"\n") for chunk in chunks]
    assert sizes == [BLOCK_WEIGHT - 1, BLOCK_WEIGHT, 1]


@pytest.mark.parametrize("since", [0, 1, BLOCK_WEIGHT - 1, BLOCK_WEIGHT, 2 * BLOCK_WEIGHT + 7, 2 * BLOCK_WEIGHT + 10, 10**15])
@pytest.mark.parametrize("end", [None, 0, 5, BLOCK_WEIGHT, BLOCK_WEIGHT + 1, 10**15])
def test_any_part_of_a_journal_can_be_read(since, end):
    journal = Journal()
    grow(journal, 2 * BLOCK_WEIGHT + 10)
    assert numbers(journal.chunks(since, end)) == list(range(1, len(journal) + 1))[since:end]


def test_an_entry_reads_the_same_before_and_after_it_went_to_disk():
    journal, body = Journal(), b'{"event": "\\u00fc\\n"}'
    webhook = Webhook("id", signature_valid=True, duplicate=False, body=body)
    journal.append(Entry(1, "merchant", "webhook", "receiver", 1, None, webhook=webhook))
    fresh = b"".join(journal.chunks())
    grow(journal, BLOCK_WEIGHT)
    assert next(journal.chunks(end=1)) == fresh


def test_what_does_not_apply_is_left_out_of_an_entry():
    full = Entry(
        1, "card", "refund", "ref", 1, None, merchant="m", order="o", subject="refund_1", wait_ms=7, fault_id="card.refund.0"
    )
    additions = {"merchantID": "m", "orderID": "o", "subject": "refund_1", "waitMs": 7, "faultID": "card.refund.0"}
    assert line(full) == line(Entry(1, "card", "refund", "ref", 1, None)) | additions


def test_a_subject_without_a_response_code_is_journalled():
    assert (
        line(Entry(1, "card", "dispute", "ref", 1, State()))["status"],
        line(Entry(1, "card", "x", "r", 1, State()))["responseCode"],
    ) == (
        "approved",
        None,
    )


def test_memory_holds_one_block_of_entries_at_most():
    journal, states = Journal(), []
    for _ in range(10 * BLOCK_WEIGHT):
        state = State()
        states.append(weakref.ref(state))
        journal.append(Entry(1, "card", "create", "ref", 1, state))
        del state
        assert sum(ref() is not None for ref in states[-BLOCK_WEIGHT - 1 :]) <= BLOCK_WEIGHT
    assert sum(ref() is not None for ref in states) <= BLOCK_WEIGHT


def test_entries_with_large_bodies_make_small_blocks():
    journal = Journal()
    body = msgspec.json.encode({"text": "x" * 100 * BODY_BYTES_PER_WEIGHT})
    for _ in range(9):
        journal.append(Entry(1, "merchant", "webhook", "r", 1, None, webhook=Webhook("id", True, False, body)))
    assert [chunk.count(b"\n") for chunk in journal.chunks()] == [3, 3, 3]


def test_a_full_disk_is_reported_once_and_loses_nothing(caplog):
    journal = Journal(lambda: os.open("/dev/full", os.O_RDWR))
    grow(journal, 3 * BLOCK_WEIGHT + 1)
    assert numbers(journal.chunks()) == list(range(1, len(journal) + 1))
    [record] = caplog.records
    assert "No space left on device" in record.message
    assert "TMPDIR" in record.message


def test_a_disk_that_has_room_again_is_used_again():
    opened: list[int] = []

    def open_file() -> int:
        opened.append(0)
        if len(opened) == 1:
            raise FileNotFoundError("no usable temporary directory")
        return temporary_file()

    journal = Journal(open_file)
    grow(journal, 3 * BLOCK_WEIGHT)
    assert numbers(journal.chunks()) == list(range(1, len(journal) + 1))
    assert len(opened) == 2


def test_the_file_has_no_name_and_goes_with_the_journal():
    descriptors: list[int] = []

    def open_file() -> int:
        descriptors.append(temporary_file())
        return descriptors[0]

    journal = Journal(open_file)
    grow(journal, BLOCK_WEIGHT)
    status = os.fstat(descriptors[0])
    assert (status.st_nlink, status.st_size > 0) == (0, True)
    del journal
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])
