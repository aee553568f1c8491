"""What must not be kept of an error, or shown in a log: passwords, tokens, keys. Text to text, and nothing else."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final

Redact = Callable[[str], str]
"""From a text to the same without what must not be kept."""

MASK: Final = "***"

# The grammar, from small to large. Every repetition that may fail is bounded, so that a text is read in time that grows
# with its length only; what is unbounded takes all that it has read.

_KEYS: Final = (
    "password", "passwd", "passphrase", "passwort", "passcode", "pwd", r"(?<![^\W_])pass(?![^\W_])", "secret", "token",
    "api[_ -]?key", "access[_-]?key", "private[_-]?key", "account[_-]?key", "shared[_-]?key", "encryption[_-]?key",
    "signing[_-]?key", "credentials?", "signature", "session[_-]?id", "(?<![^\\W_])jwt", "(?<![^\\W_])otp(?![^\\W_])",
)  # fmt: skip
"""What the name of a secret has in it, in any case."""
_HEADERS: Final = ("(?:proxy-)?authorization", "(?:set-)?cookie2?")
"""Headers whose whole line is the secret: schemes and parameters of any kind."""
_QUOTE: Final = r"""(?:\\{0,15}["']|%2[27]|&(?:quot|\#34|\#39|apos);)"""
"""A quotation mark, as it is, or as it looks in JSON inside JSON, in a URL, in HTML."""
_STARTS: Final = r"""(?:[bBuUrRfF]{1,2}(?=["']))?"""
"""What Python writes before a quotation mark."""
_IS: Final = r"(?:\s{0,4}(?:=>|:=|[:=]|%3[AaDd])\s{0,4})"
"""Between a name and its value. In a tuple or a list it is a comma, between two quotation marks."""
_WORD: Final = (
    r"""(?:[^\s,;&)}\]>"'\\<%]|%(?!2[2267])|\\(?!["'])"""
    r"""|[,;](?![\s"']|$|[\w-]{1,40}[=:])|[)}\]>](?![\s,;.:)}\]>"']|$))+"""
)
"""A value without quotation marks: punctuation that something follows at once is part of it."""

_BLOCK: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|SECRET KEY BLOCK|PGP MESSAGE)-----"
    r".*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)",
    re.DOTALL,
)
"""A key as OpenSSL, OpenSSH and PGP write it, encrypted or not, also where the text was cut in the middle of it."""
_DATABASES: Final = (
    r"(?:postgres(?:ql)?|psql|mysql|mariadb|mssql|oracle|rediss?|mongodb|amqps?|clickhouse|ldaps?|smtps?)"
    r"(?:\+\w{1,20})?"
)
_HOST: Final = r"""(?=[^\s@/?\#"'<>,\\]{0,255}(?!@)(?:[\s/?\#"'<>,\\]|$))"""
"""What follows the last @ of a URL's user: a host, and no other @."""
_PORT: Final = r"""(?!\d{1,5}(?:[/?\#\s,"'\\]|$))"""
"""Where this is a port there is no password behind it."""
_URLS: Final = (
    # A database's: its password may have anything in it that somebody forgot to quote.
    re.compile(
        rf"(\b{_DATABASES}://)[^\s@]{{0,500}}(?:@[^\s@/]{{0,500}}){{0,20}}@(?=[^\s@]{{0,255}}(?:\s|$))", re.IGNORECASE
    ),
    re.compile(rf"""(://)[^\s/?\#"'<>@:]{{0,200}}:{_PORT}[^\n@"<>]{{0,200}}(?:@[^\n@/"<>]{{0,200}}){{0,5}}@{_HOST}"""),
    re.compile(r"""(://)[^\s/?\#"'<>@]{0,500}(?:@[^\s/?\#"'<>@]{0,500}){0,5}@"""),
)
_TOKENS: Final = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|sk-|(?:sk|rk|pk)_(?:live|test)_|whsec_|npm_|pypi-|hf_|shpat_|dop_v1_)[\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bya29\.[\w-]{10,}|\bSG\.[\w-]{10,}\.[\w-]{10,}"
)
"""Tokens that say by their form what they are."""
_BEARER: Final = re.compile(
    r"(\b(?:bearer|(?:apikey|basic|digest|negotiate)(?=\s{1,4}[^\s\"']{0,200}[\d.~+/=_-]))\s{1,4})[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
"""What follows the name of a scheme; for names that are words, too, only where it does not look like another word."""
_USER: Final = re.compile(r"""((?<![\w-])(?:-u|--user|--proxy-user)[\s=]{1,4}["']?[^\s:"']{1,100}:)[^\s"']+""")
"""An option that takes a user and a password, as curl's."""


class Redactor:
    """Masks what looks secret: users in URLs, ``Authorization``, cookies, tokens, private keys, and values by name.

    ``keys`` are names of values to mask besides ``password``, ``token``, ``secret`` and the like; they may stand
    anywhere in a name, in any case. A name and its value are found as ``name=value``, ``name: "value"``,
    ``--name value``, ``("name", "value")``, ``<name>value</name>``, also as JSON inside JSON. Each text is read in time
    that grows with its length only.

    >>> Redactor(["iban"])("IBAN: DE02 for postgresql://ann:pw@db/shop?password=x")
    'IBAN: *** for postgresql://***@db/shop?password=***'
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # Bounded before and after the name, so that a long word is not walked from each of its letters.
        key = rf"(?:{'|'.join([*_KEYS, *map(re.escape, keys)])})[\w.-]{{0,40}}"
        header = rf"(?<![\w-])(?:{'|'.join(_HEADERS)})"
        quoted = rf"{_STARTS}(?P<quote>{_QUOTE})(?:(?P=quote){{2}}|.)*?(?:(?<!\\)(?P=quote)(?!(?P=quote))|(?=\n)|\Z)"
        listed = rf"{_QUOTE}\s{{0,4}},\s{{0,4}}(?={_STARTS}{_QUOTE})"
        self._parts: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
            (_BLOCK, MASK),
            *((url, rf"\1{MASK}@") for url in _URLS),
            (_TOKENS, MASK),
            (_compiled(rf"({header}(?:{_QUOTE}?{_IS}|{listed})){quoted}"), _masked),
            (_compiled(rf"""({_QUOTE})({header}{_IS})(?!{_STARTS}{_QUOTE}).*?(?=\1|\n|\Z)"""), rf"\1\2{MASK}"),
            (_compiled(rf"""({header}{_QUOTE}?{_IS})(?!{_STARTS}{_QUOTE})[^\n]+"""), rf"\1{MASK}"),
            (_compiled(rf"((?:{key})\]?(?:{_QUOTE}?\]?{_IS}|{listed})){quoted}"), _masked),
            (_compiled(rf"((?:{key}){_QUOTE}?\]?{_IS}){_STARTS}(?!{_QUOTE}){_WORD}"), rf"\1{MASK}"),
            (_compiled(rf"(--[\w-]{{0,40}}(?:{key})\s{{1,4}}){quoted}"), _masked),
            (_compiled(rf"(--[\w-]{{0,40}}(?:{key})\s{{1,4}})(?!-|{_QUOTE})\S+"), rf"\1{MASK}"),
            (_compiled(rf"(<(?:\w{{1,20}}:)?[\w-]{{0,40}}(?:{key})(?:\s[^<>]{{0,200}})?>)[^<]+"), rf"\1{MASK}"),
            (_BEARER, rf"\1{MASK}"),
            (_USER, rf"\1{MASK}"),
        )

    def __call__(self, text: str) -> str:
        """``text`` without what looks secret."""
        for pattern, mask in self._parts:
            text = pattern.sub(mask, text)
        return text


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _masked(match: re.Match[str]) -> str:
    """A quoted value: its quotation marks stay, also where the text was cut before the second."""
    return f"{match[1]}{match['quote']}{MASK}{match['quote']}"


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


_PROBE: Final = "0123x"
"""A value by which a name is known for a secret's: it looks like nothing else."""


def inside(value: Any, hook: Redact) -> Any:
    """Plain data with every text in it masked; what has a secret's name is masked whole, whatever it is."""
    if isinstance(value, dict):
        return {hook(str(name)): _named(str(name), held, hook) for name, held in value.items()}
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str):  # as a header stands in a list of them
            return [hook(value[0]), _named(value[0], value[1], hook)]
        return [inside(held, hook) for held in value]
    return hook(value) if isinstance(value, str) else value


def _named(name: str, value: Any, hook: Redact) -> Any:
    if value is None:
        return None
    if _PROBE not in hook(f'{name}: "{_PROBE}"'):
        return MASK
    if isinstance(value, dict | list):
        return inside(value, hook)
    before = f"{name}: "
    text = f"{before}{value}"
    if (masked := hook(text)) == text:
        return value
    return masked.removeprefix(before) if isinstance(value, str) and masked.startswith(before) else MASK


def traceback_of(error: BaseException) -> str:
    """Where an error came from, as Python prints it: never the values of variables, and not without end."""
    return "".join(traceback.TracebackException.from_exception(error, limit=-50, max_group_depth=5).format())
