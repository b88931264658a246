"""Double entry. An entry's debits equal its credits, per currency, or it cannot be made.

Accounts: `receivable:{provider}` what a provider owes us, `payable:{merchant}` what we owe a merchant, `fees` what we earned.
"""

import msgspec


class Posting(msgspec.Struct, frozen=True):
    account: str
    currency: str
    debit_minor: int
    credit_minor: int


class Entry(msgspec.Struct, frozen=True):
    """`id` is derived from what is booked, so that the same thing cannot be booked twice."""

    id: str
    payment_id: str
    created_at_ms: int
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        balance: dict[str, int] = {}
        for posting in self.postings:
            if posting.debit_minor < 0 or posting.credit_minor < 0:
                raise ValueError(f"negative posting in {self.id}")
            balance[posting.currency] = balance.get(posting.currency, 0) + posting.debit_minor - posting.credit_minor
        if any(balance.values()):
            raise ValueError(f"entry {self.id} does not balance: {balance}")


def capture(
    *, payment_id: str, provider: str, merchant_id: str, currency: str, amount_minor: int, fee_minor: int, now_ms: int
) -> Entry:
    """Debit what the provider owes us, credit the merchant, less our fee."""
    postings = [
        Posting(f"receivable:{provider}", currency, amount_minor, 0),
        Posting(f"payable:{merchant_id}", currency, 0, amount_minor - fee_minor),
    ]
    if fee_minor:
        postings.append(Posting("fees", currency, 0, fee_minor))
    return Entry(f"ent_{payment_id.removeprefix('pay_')}_capture", payment_id, now_ms, tuple(postings))
