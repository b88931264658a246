"""Plants violations into evidence, one at a time, and asks the auditor."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from loadtests.auditor import Invariant, audit
from loadtests.evidence import Ack, Evidence, Haystack, JournalEntry, Sent
from loadtests.records import Posting

Rows = list[Any]
Plant = Callable[[Evidence], Evidence]


def gateway(evidence: Evidence, table: str, edit: Callable[[list[Any]], list[Any]]) -> Evidence:
    """The evidence with one table of the gateway edited."""
    assert evidence.gateway is not None
    rows = tuple(edit(list(getattr(evidence.gateway, table))))
    return msgspec.structs.replace(evidence, gateway=msgspec.structs.replace(evidence.gateway, **{table: rows}))


def journal(evidence: Evidence, edit: Callable[[list[JournalEntry]], list[JournalEntry]]) -> Evidence:
    return msgspec.structs.replace(evidence, journal=tuple(edit(list(evidence.journal or ()))))


def acks(evidence: Evidence, edit: Callable[[list[Ack]], list[Ack]]) -> Evidence:
    """The evidence with other client notes; the generator's counts follow, as if it had measured them."""
    edited = edit(list(evidence.acks))
    statuses = Counter(ack.httpStatus for ack in edited)
    counts = Sent(len(edited), len(edited), 0, {"answered": len(edited) - statuses[0], "timeout": statuses[0]}, statuses)
    return msgspec.structs.replace(evidence, acks=tuple(edited), sent=counts)


def changed(rows: list[Any], *, where: dict[str, Any], **changes: Any) -> list[Any]:
    """`rows` with changes to those that match `where`; at least one must, or the test would plant nothing."""
    matches = [all(getattr(row, name) == value for name, value in where.items()) for row in rows]
    assert any(matches), f"no row has {where}"
    return [msgspec.structs.replace(row, **changes) if match else row for row, match in zip(rows, matches, strict=True)]


def without(rows: list[Any], **where: Any) -> list[Any]:
    kept = [row for row in rows if not all(getattr(row, name) == value for name, value in where.items())]
    assert len(kept) < len(rows), f"no row has {where}"
    return kept


def copied(rows: list[Any], *, where: dict[str, Any], **changes: Any) -> list[Any]:
    """`rows` and, at the end, changed copies of those that match."""
    matching = [row for row in rows if all(getattr(row, name) == value for name, value in where.items())]
    return rows + changed(matching, where=where, **changes)


def broken(evidence: Evidence) -> dict[int, str]:
    """Number and first violation of each invariant that does not hold."""
    return {found.number: found.violations[0] for found in audit(evidence) if found.ok is False}


def number(evidence: Evidence, wanted: int) -> Invariant:
    return next(found for found in audit(evidence) if found.number == wanted)


def more(evidence: Evidence, provider: str, operation: str, reference: str, status: str | None, **fields: Any) -> Evidence:
    """The evidence with one more entry at the end of the journal."""
    charge = {"amount": 1000, "currency": "INR"} if status else {}
    entry = {"seq": len(evidence.journal or ()) + 1, "at": 9_000, "provider": provider, "operation": operation}
    return journal(
        evidence, lambda rows: [*rows, JournalEntry(**{**entry, "reference": reference, "status": status, **charge, **fields})]
    )


def second_charge(evidence: Evidence, name: str) -> Evidence:
    """A gateway that took a read timeout for a failure, and tried again under a new reference."""
    twice = more(evidence, "card", "create", f"{name}_2", "approved", moved=1000)
    return gateway(twice, "attempts", lambda rows: copied(rows, where={"reference": f"{name}_1"}, reference=f"{name}_2"))


def entry_with(*postings: Posting) -> Plant:
    return lambda healthy: gateway(
        healthy, "entries", lambda rows: changed(rows, where={"entryID": "ent_card"}, postings=postings)
    )


def posting(account: str, *, debit: int = 0, credit: int = 0, currency: str = "INR") -> Posting:
    return Posting(account, currency, debit, credit)


def row(table: str, where: dict[str, Any], **changes: Any) -> Plant:
    return lambda healthy: gateway(healthy, table, lambda rows: changed(rows, where=where, **changes))


def no_row(table: str, **where: Any) -> Plant:
    return lambda healthy: gateway(healthy, table, lambda rows: without(rows, **where))


def entry(where: dict[str, Any], **changes: Any) -> Plant:
    return lambda healthy: journal(healthy, lambda rows: changed(rows, where=where, **changes))


def ack(where: dict[str, Any], **changes: Any) -> Plant:
    return lambda healthy: acks(healthy, lambda rows: changed(rows, where=where, **changes))


def told_body(name: str, status: str, **changes: Any) -> msgspec.Raw:
    """The body of the webhook that says that the payment's status is this one."""
    ids = {"id": f"evt_{name}_2", "event": f"payment.{status}", "sequence": 2}
    data = {"paymentID": f"pay_{name}", "status": status, "amount": 1000, "currency": "INR", "transactionID": f"txn_{name}"}
    top = {key: changes.get(key, value) for key, value in ids.items()}
    return msgspec.Raw(msgspec.json.encode({**top, "data": {key: changes.get(key, value) for key, value in data.items()}}))


def told(**changes: Any) -> Plant:
    body = msgspec.json.decode(told_body("card", "completed"))
    body["data"] |= changes
    return entry({"webhookID": "evt_card_2"}, body=msgspec.Raw(msgspec.json.encode(body)))


def sent(**changes: Any) -> Plant:
    return lambda healthy: msgspec.structs.replace(healthy, sent=msgspec.structs.replace(healthy.sent, **changes))


def stored(name: str, content: bytes) -> Plant:
    return lambda healthy: msgspec.structs.replace(healthy, haystacks=(*healthy.haystacks, Haystack(name, content)))


def both(*plants: Plant) -> Plant:
    def plant(evidence: Evidence) -> Evidence:
        for one in plants:
            evidence = one(evidence)
        return evidence

    return plant
