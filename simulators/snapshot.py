"""Snapshots of a world: everything that it remembers, what waits on its clock, and the settings in force.

A snapshot is one pickle of what the world's parts remember (`World.remember`), in which the parts themselves and the timers stand
as names. What waits on the clock is the due time, the part and its method, and the arguments: data. Restoring fills the same
parts again, so whoever holds one goes on with it. A pickle never leaves this process, and none comes in.

Not in a snapshot: callbacks under way (a restore forgets them; a callback may get lost anyway), queues in front of stations, and the
minute's count of inquiries. Taking one holds the event loop for
about 5 us a charge, restoring one for 1 us (measured at 50 000).
"""

import io
import pickle
from typing import Any

import msgspec

from simulators.clock import Timer
from simulators.config import Simulators
from simulators.journal import Journal, Mark
from simulators.site import Site
from simulators.world import World

SNAPSHOTS_MAX = 16  # of one tenant; each has a copy of all charges, some 170 bytes a charge


class Snapshot(msgspec.Struct, frozen=True):
    """A world as it was. `at` is the world's time then, in ms since 1970."""

    at: int
    seed: int
    settings: Simulators
    offset_ms: int
    timeline_start_ms: int | None
    journal: Journal
    mark: Mark
    memory: bytes
    callbacks_under_way: int  # which are not in it


def take(site: Site) -> Snapshot:
    """What the site is now."""
    world = site.world
    return Snapshot(
        world.now_ms(),
        world.draws.seed,
        site.settings,
        world.clock.offset_ms,
        world.timeline_start_ms,
        world.journal,
        world.journal.mark(),
        _memory(world),
        site.callbacks.outstanding,
    )


def restore(site: Site, snapshot: Snapshot) -> None:
    """Makes the site what it was; its clock is ahead of the system's time by what it was then."""
    world = site.world
    site.callbacks.forget()
    world.draws.reseed(snapshot.seed)
    world.journal = snapshot.journal
    world.journal.rewind(snapshot.mark)
    world.timeline_start_ms = snapshot.timeline_start_ms
    site.change(snapshot.settings)
    _remember(world, snapshot.memory, snapshot.offset_ms)


def reset(site: Site, birth: Snapshot, *, seed: int | None = None, settings: Simulators | None = None) -> None:
    """Makes the site as new as it was in the snapshot `birth`: an empty journal, the system's time. `None` keeps what there is."""
    journal = Journal()
    seed = site.world.draws.seed if seed is None else seed
    fresh = {"seed": seed, "settings": settings or site.settings, "journal": journal, "mark": journal.mark()}
    restore(site, msgspec.structs.replace(birth, **fresh))


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: dict[int, tuple[str, int]]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._names = names

    def persistent_id(self, found: Any) -> tuple[str, int] | None:  # noqa: ANN401 - any object at all
        """The name of a part or timer; `None` for what is data."""
        if isinstance(found, Timer):
            return self._names.get(id(found), ("timer", 0))  # 0: it waits no more
        return self._names.get(id(found))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, world: World) -> None:
        super().__init__(file)
        self._world = world
        self._timers: dict[int, Timer] = {}

    def timer(self, number: int) -> Timer:
        """The one timer of this number. It waits for nothing until it is told."""
        if number not in self._timers:
            self._timers[number] = Timer(self._world.clock, 0, None, ())
        return self._timers[number]

    def persistent_load(self, name: tuple[str, int]) -> object:
        """What the name stands for."""
        kind, number = name
        return self.timer(number) if kind == "timer" else self._world.memories[number][0]


def _memory(world: World) -> bytes:
    due = world.clock.due()
    names = {id(owner): ("part", number) for number, (owner, _) in enumerate(world.memories)}
    names |= {id(timer): ("timer", number) for number, timer in enumerate(due, 1)}
    file, remembered = io.BytesIO(), [[getattr(owner, name) for name in names_] for owner, names_ in world.memories]
    _Pickler(file, names).dump((remembered, [timer.parts() for timer in due]))
    return file.getvalue()


def _remember(world: World, memory: bytes, offset_ms: int) -> None:
    unpickler = _Unpickler(io.BytesIO(memory), world)
    remembered, due = unpickler.load()
    # Who joined the world after the snapshot had nothing to remember then: a host of ISO 8583, after the birth.
    remembered += [[{} for _ in names] for _, names in world.memories[len(remembered) :]]
    for (owner, names), values in zip(world.memories, remembered, strict=True):
        for name, value in zip(names, values, strict=True):
            _put(owner, name, value)
    timers = [unpickler.timer(number) for number in range(1, len(due) + 1)]
    for timer, parts in zip(timers, due, strict=True):
        timer.become(*parts)
    world.clock.restore(offset_ms, timers)


def _put(owner: object, name: str, value: object) -> None:
    if isinstance(value, dict):  # others hold the same dict
        kept: dict[object, object] = getattr(owner, name)
        kept.clear()
        kept.update(value)
    else:
        setattr(owner, name, value)
