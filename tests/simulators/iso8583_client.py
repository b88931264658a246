"""A terminal of a bank that speaks ISO 8583, built on pyiso8583 alone: what a user of the simulators would write."""

import asyncio

import iso8583
from iso8583.specs import default_ascii

PATIENCE_S = 10
TRANSMITTED = "1123101500"  # MMDDhhmmss
APPROVED_CARD = "4111111111111111"

Fields = dict[str, str]


def packed(fields: Fields) -> bytes:
    """A message with its length header."""
    message, _ = iso8583.encode(dict(fields), default_ascii)
    return framed(bytes(message))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def unpacked(message: bytes) -> Fields:
    """The fields of a message without its header. Raises iso8583.DecodeError."""
    fields, _ = iso8583.decode(message, default_ascii)
    return {name: text for name, text in fields.items() if name not in ("p", "1")}


def original_of(fields: Fields) -> str:
    """Data element 90, naming a message."""
    return fields["t"] + fields["11"] + fields["7"] + fields["32"].zfill(11) + "0" * 11


class Terminal:
    """One terminal on one connection. Its messages are counted by STAN; `changes` are fields by number, `None` leaves one out."""

    def __init__(self, first_stan: int = 1) -> None:
        self.stan = first_stan

    @classmethod
    async def connect(cls, port: int, first_stan: int = 1) -> "Terminal":
        terminal = cls(first_stan)
        terminal.reader, terminal.writer = await asyncio.open_connection("127.0.0.1", port)
        return terminal

    def message(self, mti: str, changes: dict[str, str | None], **common: str) -> Fields:
        stan, self.stan = f"{self.stan:06d}", self.stan + 1
        fields: dict[str, str | None] = {"t": mti, "7": TRANSMITTED, "11": stan, **common, **changes}
        return {name: text for name, text in fields.items() if text is not None}

    def financial(self, mti: str, amount: int = 1000, changes: dict[str, str | None] | None = None, **common: str) -> Fields:
        acceptor = {"32": "400123", "41": "TERM0001", "42": "MERCHANT-1     ", "49": "356"}
        return self.message(mti, changes or {}, **{"4": f"{amount:012d}"}, **acceptor, **common)

    def purchase(self, mti: str = "0200", amount: int = 1000, card: str = APPROVED_CARD, **changes: str | None) -> Fields:
        """0100 or 0200. `changes` are named de4, de14 and so on."""
        fields = {"2": card, "3": "000000", "12": "101500", "13": "1123", "14": "9912", "22": "012", "25": "00"}
        return self.financial(mti, amount, {name.removeprefix("de"): text for name, text in changes.items()}, **fields)

    def following(self, mti: str, original: Fields, amount: int = 1000, **changes: str | None) -> Fields:
        """0220, 0400 or 0420, or a refund as 0200, of a message that was sent."""
        fields = {"3": "200000" if mti[:3] == "020" else "000000", "90": original_of(original)}
        return self.financial(mti, amount, {name.removeprefix("de"): text for name, text in changes.items()}, **fields)

    def network(self, code: str = "301") -> Fields:
        return self.message("0800", {}, **{"70": code})

    def send(self, *messages: Fields) -> None:
        self.writer.write(b"".join(map(packed, messages)))

    async def receive_bytes(self) -> bytes:
        """The next message without its header. Raises asyncio.IncompleteReadError if the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            length = int.from_bytes(await self.reader.readexactly(2), "big")
            return await self.reader.readexactly(length)

    async def receive(self) -> Fields:
        return unpacked(await self.receive_bytes())

    async def call(self, message: Fields) -> Fields:
        self.send(message)
        answer = await self.receive()
        assert answer["11"] == message["11"]
        return answer

    async def ended(self) -> bool:
        """Whether the other side ends the connection in an orderly way, without another byte."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""
