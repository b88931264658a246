import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import ledger
from gateway.core.ledger import Entry, Posting


def entry(*postings: Posting) -> Entry:
    return Entry("ent_1", "pay_1", 1, postings)


@pytest.mark.parametrize(
    "postings",
    [
        (Posting("a", "INR", 1, 0),),
        (Posting("a", "INR", 100, 0), Posting("b", "INR", 0, 99)),
        (Posting("a", "INR", 100, 0), Posting("b", "USD", 0, 100)),
        (Posting("a", "INR", 100, 0), Posting("b", "INR", 0, 100), Posting("c", "USD", 1, 0)),
    ],
)
def test_an_entry_that_does_not_balance_per_currency_cannot_be_made(postings: tuple[Posting, ...]):
    with pytest.raises(ValueError, match="ent_1 does not balance"):
        entry(*postings)


def test_an_entry_with_negative_postings_cannot_be_made():
    with pytest.raises(ValueError, match="negative posting in ent_1"):
        entry(Posting("a", "INR", -5, 0), Posting("b", "INR", 0, -5))


def test_an_entry_may_balance_in_several_currencies():
    made = entry(*(Posting(account, currency, *sides) for currency in ("INR", "USD") for account, sides in SIDES.items()))
    assert len(made.postings) == 4


SIDES = {"a": (7, 0), "b": (0, 7)}


@given(st.integers(1, 10**12), st.data())
def test_a_capture_moves_the_whole_amount_and_splits_it_between_merchant_and_fees(amount: int, data: st.DataObject):
    fee = data.draw(st.integers(0, amount))
    made = ledger.capture(
        name="7_capture",
        subject_id="pay_7",
        provider="upi",
        merchant_id="m",
        currency="INR",
        amount_minor=amount,
        fee_minor=fee,
        now_ms=5,
    )
    balances = {p.account: p.debit_minor - p.credit_minor for p in made.postings}
    assert balances == {"receivable:upi": amount, "payable:m": fee - amount} | ({"fees": -fee} if fee else {})
    assert (made.id, made.subject_id, made.created_at_ms) == ("ent_7_capture", "pay_7", 5)
