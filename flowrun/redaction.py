"""What must not be kept of an error, or shown in a log: passwords, tokens, keys. Text to text, and nothing else."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final

Redact = Callable[[str], str]
"""From a text to the same without what must not be kept."""

MASK: Final = "***"
_KEYS: Final = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "api[_-]?key", "access[_-]?key", "private[_-]?key",
    "credentials?", "cookie",
)  # fmt: skip
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.|'')*'|["']?[^\s,;&)}\]"']+)"""


class Redactor:
    """Masks what looks secret: users in URLs, ``Authorization``, bearer tokens, private keys, and the values of keys.

    ``keys`` are names of values to mask besides ``password``, ``token``, ``secret`` and the like; they may stand
    anywhere in a name, in any case. Each text is read once, in time that grows with its length only.

    >>> Redactor(["iban"])("IBAN: DE02 for postgresql://ann:pw@db/shop?password=x")
    'IBAN: *** for postgresql://***@db/shop?password=***'
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        named = "|".join([*_KEYS, *map(re.escape, keys)])
        # Bounded before and after the name, so that a long word is not walked from each of its letters.
        self._parts: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
            (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}KEY-----)?"), MASK),
            (re.compile(r"(://)[^\s/?#\"'<>@]*(?:@[^\s/?#\"'<>@]*)*@"), rf"\1{MASK}@"),
            (
                re.compile(
                    r"(\b(?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?)"
                    r"(?:(?:basic|bearer|digest|negotiate|token)\s+)?[^\s\"',;]+",
                    re.IGNORECASE,
                ),
                rf"\1{MASK}",
            ),
            (re.compile(r"(\bbearer\s{1,4})[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
            (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),
            (
                re.compile(rf"((?:{named})[\w-]{{0,40}}[\"']?\s{{0,4}}[:=]\s{{0,4}})({_VALUE})", re.IGNORECASE),
                lambda match: match[1] + (f"{match[2][0]}{MASK}{match[2][0]}" if match[2][0] in "\"'" else MASK),
            ),
        )

    def __call__(self, text: str) -> str:
        """``text`` without what looks secret."""
        for pattern, mask in self._parts:
            text = pattern.sub(mask, text)
        return text


redact: Redact = Redactor()
"""What masks when nothing else is said."""


def guarded(hook: Redact | None) -> Redact:
    """``hook``, so that it never raises: what it cannot mask is not kept. None masks nothing."""
    if hook is None:
        return str

    def masked(text: str) -> str:
        try:
            found: Any = hook(text)
            if issubclass(type(found), str):
                return str.__str__(found)
        except BaseException as error:  # noqa: BLE001 - a user's own, which may be sys.exit() too
            return f"<not kept: redact raised {type(error).__name__}>"
        return f"<not kept: redact returned {type(found).__name__}>"

    return masked


def inside(value: Any, hook: Redact) -> Any:
    """Plain data with every text in it masked; a value that has a name is masked as ``name: value`` would be."""
    if isinstance(value, dict):
        return {hook(str(name)): _named(str(name), held, hook) for name, held in value.items()}
    if isinstance(value, list):
        return [inside(held, hook) for held in value]
    return hook(value) if isinstance(value, str) else value


def _named(name: str, value: Any, hook: Redact) -> Any:
    if isinstance(value, dict | list) or value is None:
        return inside(value, hook)
    before = f"{name}: "
    text = f"{before}{value}"
    if (masked := hook(text)) == text:
        return value
    return masked.removeprefix(before) if isinstance(value, str) and masked.startswith(before) else MASK


def traceback_of(error: BaseException) -> str:
    """Where an error came from, as Python prints it: never the values of variables, and not without end."""
    return "".join(traceback.TracebackException.from_exception(error, limit=-50, max_group_depth=5).format())
