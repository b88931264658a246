"""Double entry. An entry's debits equal its credits, per currency, or it cannot be made.

Accounts: `receivable:{provider}` what a provider owes us, `payable:{merchant}` what we owe a merchant, `fees` what we earned, `bank`
what is in our own account.
"""

import msgspec

FEES = "fees"
BANK = "bank"


class Posting(msgspec.Struct, frozen=True):
    account: str
    currency: str
    debit_minor: int
    credit_minor: int


class Entry(msgspec.Struct, frozen=True):
    """`id` is derived from what is booked, so that the same thing cannot be booked twice. `subject_id` is the payment or settlement."""

    id: str
    subject_id: str
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


def receivable(provider: str) -> str:
    return f"receivable:{provider}"


def payable(merchant_id: str) -> str:
    return f"payable:{merchant_id}"


def capture(
    *,
    name: str,
    subject_id: str,
    provider: str,
    merchant_id: str,
    currency: str,
    amount_minor: int,
    fee_minor: int,
    now_ms: int,
) -> Entry:
    """Debit what the provider owes us, credit the merchant, less our fee."""
    postings = [
        Posting(receivable(provider), currency, amount_minor, 0),
        Posting(payable(merchant_id), currency, 0, amount_minor - fee_minor),
    ]
    if fee_minor:
        postings.append(Posting(FEES, currency, 0, fee_minor))
    return Entry(f"ent_{name}", subject_id, now_ms, tuple(postings))


def given_back(
    *,
    name: str,
    subject_id: str,
    provider: str,
    merchant_id: str,
    currency: str,
    amount_minor: int,
    now_ms: int,
    undone: bool = False,
) -> Entry:
    """A refund or chargeback: debit the merchant, credit what the provider owes us. `undone`: it failed or was won after all."""
    debit, credit = payable(merchant_id), receivable(provider)
    if undone:
        debit, credit = credit, debit
    return transfer(
        name=name,
        subject_id=subject_id,
        debit=debit,
        credit=credit,
        currency=currency,
        amount_minor=amount_minor,
        now_ms=now_ms,
    )


def transfer(*, name: str, subject_id: str, debit: str, credit: str, currency: str, amount_minor: int, now_ms: int) -> Entry:
    """One amount from account to account."""
    postings = (Posting(debit, currency, amount_minor, 0), Posting(credit, currency, 0, amount_minor))
    return Entry(f"ent_{name}", subject_id, now_ms, postings)
