"""One value, to what is stored and back."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from typing import Any, Final

from flowrun import codec
from flowrun.encryption import KEY_ID, Codec
from flowrun.errors import ConfigurationError, NotReadable

MARK: Final = "flowrun:sealed:"
"""What a sealed value begins with."""
JSON_MARK: Final = f'"{MARK}'
"""The same as JSON."""
VERSION: Final = "1"


class Sealing:
    """Seals and opens the values of one app. Without a codec it seals nothing, and knows what it cannot open.

    ``owner`` is whose value it is: the id of a job (of a signal: of the outermost flow; of a schedule: its key), and
    ``field`` which one. Both are bound to what is sealed, so that it is opened nowhere else.
    """

    __slots__ = ("_codec", "active")

    def __init__(self, codec: Codec | None) -> None:
        self._codec = codec
        self.active: bool = codec is not None
        """Whether what is written is sealed."""

    def text(self, plain: str, owner: object, field: str) -> str:
        """A text, sealed. Raises what the codec raises."""
        if self._codec is None:
            return plain
        key, sealed = self._codec.seal(plain.encode(), _context(owner, field))
        if not KEY_ID.fullmatch(key):
            raise ConfigurationError(f"a codec's id of a key is 1 to 64 letters, digits, '.', '_' or '-'; got {key!r}")
        return f"{MARK}{VERSION}:{key}:{urlsafe_b64encode(sealed).decode()}"

    def json(self, plain: str, owner: object, field: str) -> str:
        """JSON, sealed: a JSON text."""
        return plain if self._codec is None else f'"{self.text(plain, owner, field)}"'

    def opened_text(self, stored: str, owner: object, field: str) -> str:
        """A text as it was before it was sealed; as it is, if it was not. Raises NotReadable."""
        return self._open(stored, owner, field) if stored.startswith(MARK) else stored

    def opened_json(self, stored: str, owner: object, field: str) -> str:
        """The same of JSON."""
        return self._open(stored[1:-1], owner, field) if stored.startswith(JSON_MARK) else stored

    def shown_text(self, stored: str | None, owner: object, field: str) -> str | None:
        """A text for people: what cannot be opened is said to be so."""
        if stored is None or not stored.startswith(MARK):
            return stored
        try:
            return self._open(stored, owner, field)
        except NotReadable:
            return closed(stored)

    def shown_json(self, stored: str | None, owner: object, field: str) -> Any:
        """The value of JSON for people; what cannot be opened is a text that says so."""
        if stored is None:
            return None
        try:
            return codec.look(self.opened_json(stored, owner, field))
        except NotReadable:
            return closed(stored[1:-1])

    def _open(self, token: str, owner: object, field: str) -> str:
        version, key, body = _parts(token)
        if version != VERSION:
            raise NotReadable(f"the {field} of {owner}: unknown encoding; a later version of flowrun may know it")
        what = f"the {field} of {owner} is encrypted (key id {key})"
        if self._codec is None:
            raise NotReadable(f"{what}, and this app has no codec")
        try:
            return self._codec.open(key, urlsafe_b64decode(body), _context(owner, field)).decode()
        except NotReadable as error:
            raise NotReadable(f"{what} and could not be opened: {error}") from None
        except (NotBase64, ValueError):
            raise NotReadable(f"{what} and could not be opened: it was changed") from None
        except Exception as error:
            raise NotReadable(f"{what} and could not be opened: the codec raised {type(error).__name__}") from error


PLAIN: Final = Sealing(None)
"""Of an app without a codec."""


def foreign(value: Any) -> bool:
    """Whether a value that was read from JSON is a sealed one."""
    return type(value) is str and value.startswith(MARK)


def closed(token: str) -> str:
    """What people are told of a value that cannot be opened."""
    _, key, _ = _parts(token)
    return f"encrypted (key id {key})"


def _parts(token: str) -> tuple[str, str, str]:
    """Version, id of the key, and the rest. Whoever may write into the table may have written anything there."""
    version, _, rest = token.removeprefix(MARK).partition(":")
    key, _, body = rest.partition(":")
    return version, key if KEY_ID.fullmatch(key) else "unknown", body


def _context(owner: object, field: str) -> bytes:
    """The length goes first, so that no two of them are the same."""
    return f"flowrun:{len(field)}:{field}:{owner}".encode()
