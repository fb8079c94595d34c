"""Messages from their bytes, after a look at how many parts they have: an empty one takes dozens of times its bytes."""

from typing import Any

from google.protobuf.message import DecodeError

from service.inference.errors import InvalidRequest, TooManyItems

_FEW_BYTES = 64 * 1024  # whatever is in so few takes no more than a few megabytes
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
_LONGEST_VARINT = 10  # bytes


def parse(content: bytes, kind: Any, most: int) -> Any:
    """Return the message of ``kind``, a class that protoc made, in ``content``.

    Raises:
        InvalidRequest: it is no such message.
        TooManyItems: it has more than ``most`` parts, those of its parts included.
    """
    if len(content) > _FEW_BYTES:
        _Parts(content, most).count(kind.DESCRIPTOR, 0, len(content))
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no {kind.DESCRIPTOR.name}.") from error


class _Parts:
    """Counts the fields of a message and of those inside it, up to a limit."""

    def __init__(self, content: bytes, most: int) -> None:
        self._content = content
        self._most = self._left = most

    def count(self, kind: Any, start: int, end: int) -> None:
        """Count the fields of a message of the descriptor ``kind`` between two bytes."""
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise TooManyItems(f"The message has more than the {self._most:,} parts that are allowed; send fewer.")
            key, start = self._varint(start, end)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                _, start = self._varint(start, end)
            elif wire == _SIZED:
                size, start = self._varint(start, end)
                field = kind.fields_by_number.get(number)
                if field is not None and field.message_type is not None:
                    self.count(field.message_type, start, min(start + size, end))
                start += size
            elif wire in _FIXED:
                start += _FIXED[wire]
            else:
                raise InvalidRequest(f"The message is no {kind.name}.")

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        """Return the number that begins at ``start``, and where it ends."""
        value = 0
        for index in range(start, min(end, start + _LONGEST_VARINT)):
            value |= (self._content[index] & 0x7F) << 7 * (index - start)
            if self._content[index] < 0x80:
                return value, index + 1
        raise InvalidRequest("The message is cut short.")
