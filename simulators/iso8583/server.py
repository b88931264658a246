"""Serves ISO 8583 on a TCP port: frames in, replies out as they finish, matched by their STAN.

No connection has a task of its own. A message is answered where it is read, or by a timer after its delay, and what a connection may
have in the air is bounded: beyond that it is not read from, and TCP makes the sender wait. No log line shows a field's content.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import cast

import structlog

from simulators.iso8583.codec import BadFrame, Frames
from simulators.iso8583.host import Host, Reply
from simulators.provider import Provider
from simulators.providers.card import CreateCharge

FRAME_S = 10.0  # from the first byte of a frame to its last; a whole frame is one TCP segment, and a lost one comes within 3 s
IN_FLIGHT_MAX = (
    256  # delayed replies of one connection; at 200 ms each it gets 1280 messages a second, more than a link of a bank
)
TURN_MESSAGES = 32  # answered at a stretch, about 5 ms, so that a flood on one connection holds nobody up
CONNECTIONS_MAX = 256  # a bank keeps a handful; a process may have 1024 files open where nobody raised the limit
BACKLOG = 128

_log = structlog.get_logger()


@asynccontextmanager
async def serving_iso8583(
    acquirer: Provider[CreateCharge], listener: socket.socket, *, frame_s: float = FRAME_S
) -> AsyncIterator[None]:
    """Serves the card acquirer over ISO 8583 on a bound socket while the context is open. `frame_s`: see `FRAME_S`."""
    host, connections = Host(acquirer), set[Connection]()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(host, connections, frame_s), sock=listener, backlog=BACKLOG
    )
    try:
        yield
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await server.wait_closed()


class Connection(asyncio.Protocol):
    """One connection. `connections` holds all that are open."""

    def __init__(self, host: Host, connections: "set[Connection]", frame_s: float) -> None:
        self._host, self._connections, self._frame_s = host, connections, frame_s
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._half_frame: asyncio.TimerHandle | None = None
        self._next_turn: asyncio.Handle | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}  # of delayed replies and of the next piece of a drip
        self._timer_keys = count()
        self._dripping = False
        self._behind: deque[Reply] = deque()  # wait for the end of a drip; bounded by IN_FLIGHT_MAX, like the timers
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol of asyncio, like the next five."""
        self._transport = cast(asyncio.Transport, transport)
        if len(self._connections) >= CONNECTIONS_MAX:
            self._hang_up(f"there are {CONNECTIONS_MAX} connections already")
        else:
            self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        self._stop()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self._proceed()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._proceed()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._stop()
        self._transport.abort()

    def _proceed(self) -> None:
        if self._next_turn is None and not self._transport.is_closing():
            self._take_turn()

    def _take_turn(self) -> None:
        """Answers what has arrived, as far as this turn and the bounds allow."""
        self._next_turn = None
        for _ in range(TURN_MESSAGES):
            if not self._writable or len(self._timers) + len(self._behind) >= IN_FLIGHT_MAX:
                return self._stop_reading()  # until a reply has left
            try:
                frame = self._frames.take()
                if frame is None:
                    return self._read_on()
                reply = self._host.answer(frame)
            except BadFrame as error:
                return self._hang_up(str(error))
            self._expect_rest(half=False)
            self._schedule(reply)
            if self._transport.is_closing():
                return None
        self._stop_reading()
        self._next_turn = self._loop.call_soon(self._take_turn)
        return None

    def _read_on(self) -> None:
        self._expect_rest(half=len(self._frames) > 0)
        self._transport.resume_reading()

    def _stop_reading(self) -> None:
        self._expect_rest(half=False)
        self._transport.pause_reading()

    def _expect_rest(self, *, half: bool) -> None:
        """Starts the deadline of a half frame, or ends it; one that runs goes on."""
        if half and self._half_frame is None:
            reason = f"the rest of a frame did not come within {self._frame_s:g} s"
            self._half_frame = self._loop.call_later(self._frame_s, self._hang_up, reason)
        elif not half and self._half_frame is not None:
            self._half_frame.cancel()
            self._half_frame = None

    def _schedule(self, reply: Reply) -> None:
        if reply.delay_ms:
            self._later(reply.delay_ms / 1000, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        if reply.damage == "reset":
            self._reset()
        elif reply.frame is None:
            return
        elif self._dripping:
            self._behind.append(reply)
        elif reply.damage == "truncated":
            self._transport.write(reply.frame[: len(reply.frame) // 2])
            self._transport.close()
        elif reply.damage == "drip":
            self._dripping = True
            self._drip(reply.frame, 0, reply.over_ms / 1000 / (len(reply.frame) - 1))
        else:
            self._transport.write(reply.frame)

    def _drip(self, frame: bytes, index: int, pause_s: float) -> None:
        self._transport.write(frame[index : index + 1])
        if index + 1 < len(frame):
            return self._later(pause_s, self._drip, frame, index + 1, pause_s)
        self._dripping = False
        behind, self._behind = self._behind, deque()
        for reply in behind:
            self._send(reply)
        return None

    def _later(self, delay_s: float, callback: Callable[..., None], *arguments: object) -> None:
        key = next(self._timer_keys)
        self._timers[key] = self._loop.call_later(delay_s, self._ring, key, callback, arguments)

    def _ring(self, key: int, callback: Callable[..., None], arguments: tuple[object, ...]) -> None:
        del self._timers[key]
        callback(*arguments)
        self._proceed()

    def _reset(self) -> None:
        linger_s0 = struct.pack("ii", 1, 0)  # on, for 0 s: closing sends RST instead of FIN, and what is unsent is dropped
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_s0)
        self.abort()

    def _hang_up(self, reason: str) -> None:
        peer = self._transport.get_extra_info("peername")
        _log.warning("ISO 8583 connection closed", peer=peer, reason=reason)
        self._stop()
        self._transport.close()

    def _stop(self) -> None:
        """Forgets what would still have been done."""
        self._expect_rest(half=False)
        if self._next_turn is not None:
            self._next_turn.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._behind.clear()
