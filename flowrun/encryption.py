"""Encryption at rest: what a codec is, and one that is ready to be used.

    app = Flowrun(dsn, codec=Encryption({"2026-11": os.environ["FLOWRUN_KEY"]}))

Needs ``pip install 'flowrun[encryption]'`` (the library `cryptography`).
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowrun.errors import ConfigurationError, NotReadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What the id of a key looks like: it is stored, readable, with everything it has sealed."""

_KEY = 32
_NONCE = 24


class Codec(Protocol):
    """What encrypts a program's data before flowrun stores them, and decrypts them: ``Flowrun(dsn, codec=...)``.

    It is called on the event loop, for each value: one that asks a key service keeps data keys in memory.
    """

    def seal(self, plain: bytes, context: bytes) -> tuple[str, bytes]:
        """Encrypt: the id of the key (letters, digits, ``.``, ``_``, ``-``; stored in clear) and what is to be stored.

        ``context`` says whose value it is, and which. It must be authenticated with it and need not be stored.
        """
        ...

    def open(self, key: str, sealed: bytes, context: bytes) -> bytes:
        """Decrypt what ``key`` has sealed. Raises, whatever it likes, when that is not possible.

        A :class:`flowrun.NotReadable` is told as it is; of any other exception only that there was one.
        """
        ...


class Encryption:
    """AES-256-GCM with a nonce of 192 random bits (XAES-256-GCM), so that one key seals as much as it likes.

    ``keys`` are by id: the first one seals, all of them open. So keys are changed in two steps: first every process
    gets the new one behind the old one, then in front of it. A key of 32 bytes, or these as base64:
    :meth:`new_key` makes one. Raises ConfigurationError.

        codec = Encryption({"k2": os.environ["KEY_2"], "k1": os.environ["KEY_1"]})
    """

    def __init__(self, keys: Mapping[str, bytes | str]) -> None:
        _need_cryptography()
        if not keys:
            raise ConfigurationError("Encryption needs one key at least: Encryption({'k1': key})")
        self._keys = {_key_id(id): _ExtendedNonces(_key(id, key)) for id, key in keys.items()}
        self._first = next(iter(self._keys))

    @staticmethod
    def new_key() -> str:
        """A random key, as base64: to be kept where secrets are kept."""
        return b64encode(os.urandom(_KEY)).decode()

    def seal(self, plain: bytes, context: bytes) -> tuple[str, bytes]:
        """Encrypt with the first key. See :class:`Codec`."""
        return self._first, self._keys[self._first].encrypt(plain, context)

    def open(self, key: str, sealed: bytes, context: bytes) -> bytes:
        """Decrypt. Raises NotReadable where the key is not known here, or the value or its context was changed."""
        if key not in self._keys:
            raise NotReadable(f"its key {key!r} is not known here")
        return self._keys[key].decrypt(sealed, context)

    def __repr__(self) -> str:
        """The ids; never the keys."""
        return f"<Encryption {', '.join(self._keys)}>"


class _ExtendedNonces:
    """XAES-256-GCM as C2SP specifies it: of the key and half of the nonce a key of its own is made for each message.

    With AES-GCM alone, whose nonces have 96 bits, two may be the same after some 2**32 messages, which gives away both
    and the key of the authentication: at 1,000 values a second that is after 50 days.
    """

    __slots__ = ("_aes", "_k1", "_make")

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._make = AESGCM
        # Of one block or two, that are never the same: what ECB must not be used for does not happen here.
        self._aes = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        first = int.from_bytes(self._encrypted(bytes(16)), "big")
        self._k1 = ((first << 1) & ((1 << 128) - 1)) ^ (0x87 if first >> 127 else 0)

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """The nonce, and what is encrypted."""
        nonce = os.urandom(_NONCE)
        return nonce + self._derived(nonce).encrypt(nonce[12:], plain, context)

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Raises NotReadable."""
        from cryptography.exceptions import InvalidTag

        if len(sealed) < _NONCE + 16:
            raise NotReadable("it was changed: it is too short")
        nonce = sealed[:_NONCE]
        try:
            return self._derived(nonce).decrypt(nonce[12:], sealed[_NONCE:], context)
        except InvalidTag:
            raise NotReadable("it was changed, or moved here from another job or field") from None

    def _derived(self, nonce: bytes) -> AESGCM:
        half = nonce[:12]
        blocks = (int.from_bytes(bytes([0, one]) + b"X\0" + half, "big") ^ self._k1 for one in (1, 2))
        return self._make(self._encrypted(b"".join(block.to_bytes(16, "big") for block in blocks)))

    def _encrypted(self, blocks: bytes) -> bytes:
        encryptor = self._aes.encryptor()
        return encryptor.update(blocks) + encryptor.finalize()


def check_codec(codec: Any) -> None:
    """Raise ConfigurationError where ``codec`` is none."""
    if codec is not None and not (callable(getattr(codec, "seal", None)) and callable(getattr(codec, "open", None))):
        raise ConfigurationError(
            f"codec must have seal() and open(), as flowrun.Codec says; got {type(codec).__name__}"
        )


def _key_id(id: str) -> str:
    if not isinstance(id, str) or not KEY_ID.fullmatch(id):
        raise ConfigurationError(f"the id of a key is 1 to 64 letters, digits, '.', '_' or '-'; got {id!r}")
    return id


def _key(id: str, key: bytes | str) -> bytes:
    """Never repeated in an error: it is a secret."""
    raw = b""
    if isinstance(key, bytes):
        raw = key
    elif isinstance(key, str):
        try:
            raw = b64decode(key.replace("-", "+").replace("_", "/"), validate=True)
        except (NotBase64, ValueError):
            raw = b""
    if len(raw) != _KEY:
        raise ConfigurationError(
            f"key {id!r} is not {_KEY} bytes, or these as base64 (it is not repeated here); see Encryption.new_key()"
        )
    return raw


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigurationError("Encryption needs cryptography: pip install 'flowrun[encryption]'") from None
