"""Frames and fields: a 2-byte big-endian length, then a message in pyiso8583's default ASCII specification. Pure."""

from collections.abc import Mapping

import iso8583
from iso8583.specs import default_ascii

HEADER_BYTES = 2
MTI_BYTES = 4
FRAME_BYTES_MAX = 4096  # without the header; the largest message that means anything here has 250 bytes

# By number ("2": PAN), "t" is the message type (MTI) and "p" the bitmap, as pyiso8583 has them.
Fields = dict[str, str]


class BadFrame(Exception):
    """The bytes are no sequence of frames, or hold no message that could be answered: only hanging up is left."""


class FormatError(Exception):
    """A message that is not ISO 8583. `fields` are those before `field`, where reading it failed."""

    def __init__(self, fields: Fields, field: str) -> None:
        self.fields, self.field = fields, field
        super().__init__(f"field {field} cannot be read")  # never its content: it may be a card number


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Adds what has arrived."""
        self._bytes += data

    def take(self) -> bytes | None:
        """The next whole frame without its header, or `None`. Raises BadFrame."""
        if len(self._bytes) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._bytes[:HEADER_BYTES], "big")
        if not MTI_BYTES <= length <= FRAME_BYTES_MAX:
            raise BadFrame(f"a frame of {length} bytes; must be {MTI_BYTES} to {FRAME_BYTES_MAX}")
        end = HEADER_BYTES + length
        if len(self._bytes) < end:
            return None
        frame = bytes(self._bytes[HEADER_BYTES:end])
        del self._bytes[:end]
        return frame

    def __len__(self) -> int:
        return len(self._bytes)


def decode(frame: bytes) -> Fields:
    """The fields of a message. Raises FormatError, and BadFrame where not even the MTI can be read."""
    mti = frame[:MTI_BYTES].decode("ascii", errors="replace")
    if not (mti.isascii() and mti.isdecimal()):
        raise BadFrame("the message type is not 4 digits")
    try:
        fields, _ = iso8583.decode(frame, default_ascii)
    except iso8583.DecodeError as error:
        complete = {name: text for name, text in error.doc_dec.items() if name != error.field}
        raise FormatError({**complete, "t": mti}, error.field) from None
    except KeyError as error:  # a third bitmap: pyiso8583 reads it, but its specification ends at 128
        raise FormatError({"t": mti}, str(error.args[0])) from None
    return fields


def encode(fields: Mapping[str, str]) -> bytes:
    """A message as a frame with its header. Fields that do not fit the specification are our own fault (EncodeError)."""
    message, _ = iso8583.encode(dict(fields), default_ascii)
    return frame_of(message)


def frame_of(message: bytes | bytearray) -> bytes:
    """Any bytes as a frame."""
    return len(message).to_bytes(HEADER_BYTES, "big") + message
