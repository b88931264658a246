"""The same seed, the same fate: whatever the order and however many at once."""

import asyncio
import random
from typing import Any

REFERENCES = [f"ref_{index}" for index in range(600)]
MIXED = {
    "card": {"outcomes": {"00": 0.7, "05": 0.2, "51": 0.1}, "latency": {"kind": "uniform", "low": "0ms", "high": "3ms"}},
    "upi": {"outcomes": {"00": 0.6, "ZA": 0.4}, "customer": {"delay": {"kind": "uniform", "low": "0ms", "high": "3ms"}}},
}
FATE = ("providerID", "responseCode", "rrn", "authorizationCode")


def fate(charge: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(charge.get(name) for name in FATE)


async def fates(client, ear, *, at_once: int, shuffled: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """Fates by provider and reference, and injected delays by reference."""
    references = random.Random(1).sample(REFERENCES, len(REFERENCES)) if shuffled else REFERENCES
    slots = asyncio.Semaphore(at_once)
    found: dict[str, Any] = {}

    async def one(index: int, reference: str) -> None:
        async with slots:
            if index % 3:
                found[f"card {reference}"] = fate(await client.card(reference))
            else:
                await client.upi(reference, ear.url)

    indexed = {reference: index for index, reference in enumerate(REFERENCES)}
    await asyncio.gather(*(one(indexed[reference], reference) for reference in references))
    for _ in range(0, len(REFERENCES), 3):
        heard = await ear.next()
        found[f"upi {heard['reference']}"] = fate(heard)
    journal = await client.journal()
    return found, {entry["reference"]: entry["delayMs"] for entry in journal if entry["operation"] == "create"}


async def test_a_seed_gives_each_reference_the_same_fate_at_any_concurrency_and_in_any_order(start, listen):
    async with listen() as first_ear, listen() as second_ear:
        one_by_one = await fates(await start(seed=11, **MIXED), first_ear, at_once=1, shuffled=False)
        all_at_once = await fates(await start(seed=11, **MIXED), second_ear, at_once=100, shuffled=True)
    assert len(one_by_one[0]) == len(REFERENCES)
    assert one_by_one == all_at_once


async def test_another_seed_gives_other_fates(start, ear):
    first, _ = await fates(await start(seed=11, **MIXED), ear, at_once=50, shuffled=False)
    second, _ = await fates(await start(seed=12, **MIXED), ear, at_once=50, shuffled=False)
    differing = sum(first[reference][1] != second[reference][1] for reference in first)
    assert differing > len(REFERENCES) / 4
