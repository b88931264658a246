"""One try at a webhook: what is signed with, and what is kept of it."""

import msgspec

from gateway.config import Webhooks
from gateway.core import signature
from gateway.flows.webhooks import LOG_MAX, Sender, Target
from gateway.ports import Delivery, Receipt
from tests.gateway.doubles import NOW_MS, ManualClock, ScriptedCourier, make_delivery, secret

NEW, OLD = (signature.secret_key(secret(name)) for name in ("new", "old"))
ROTATED = Target("ep_1", "http://merchant.example/", NEW, OLD, NOW_MS + 60_000)


def sending(courier: ScriptedCourier, clock: ManualClock) -> Sender:
    return Sender(courier=courier, clock=clock, config=Webhooks(), draw=lambda: 0.5)


async def test_the_old_key_signs_until_the_overlap_ends():
    courier, clock = ScriptedCourier(), ManualClock()
    sender = sending(courier, clock)
    for wait_ms in (0, 59_999, 1):
        clock.advance(wait_ms)
        await sender.send(ROTATED, make_delivery("pay_1"), b"{}")
    signed = []
    for post in courier.posts:
        at_s = int(post.headers["webhook-timestamp"])
        names = {signature.sign(key, post.event_id, at_s, b"{}"): name for name, key in {"new": NEW, "old": OLD}.items()}
        signed.append([names[each] for each in post.headers["webhook-signature"].split(" ")])
    assert signed == [["new", "old"], ["new", "old"], ["new"]]


async def test_the_log_of_a_delivery_has_the_latest_tries():
    clock = ManualClock()
    receipts = [Receipt(500, body=b"try %d \xff" % n) for n in range(LOG_MAX + 2)]
    courier = ScriptedCourier(lambda _: receipts.pop(0))
    sender = sending(courier, clock)
    delivery: Delivery = make_delivery("pay_1")
    for _ in range(LOG_MAX + 2):
        after, _ = await sender.send(ROTATED, delivery, b"{}")
        delivery = msgspec.structs.replace(after, tries=0)
        clock.advance(1_000)
    assert [each.response for each in delivery.log] == [f"try {n} \N{REPLACEMENT CHARACTER}" for n in range(2, LOG_MAX + 2)]
    assert [each.at_ms for each in delivery.log] == [NOW_MS + n * 1_000 for n in range(2, LOG_MAX + 2)]


def test_a_target_does_not_show_its_keys():
    shown = f"{ROTATED} {ROTATED!r} {[ROTATED]}"
    assert repr(NEW) not in shown
    assert repr(OLD) not in shown
