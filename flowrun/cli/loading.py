"""``MODULE:APP`` to the app, with errors that help."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from difflib import get_close_matches
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.exits import UsageError
from flowrun.errors import FlowrunError
from flowrun.redaction import redact


class BrokenModule(FlowrunError):
    """The user's module raised while it was imported."""


def load(target: str) -> Flowrun:
    """The app that ``target`` names: ``shop:app``, ``shop.jobs:app``, or a function that makes it, ``shop:create_app``.

    Modules are looked for in the current directory too. Raises UsageError, or BrokenModule once the traceback of the
    module's own error is on stderr.
    """
    name, colon, attribute = target.partition(":")
    if not (name and colon and attribute) or "/" in name or name.endswith(".py"):
        guess = Path(name).with_suffix("").as_posix().strip("./").replace("/", ".") or "shop"
        raise UsageError(f"{target!r} is not MODULE:APP; write for example {guess}:{attribute or 'app'}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(name)
    found = _attribute(module, attribute.removesuffix("()"))
    if callable(found) and not isinstance(found, Flowrun) and not iscoroutinefunction(found):
        found = _call(found, target)
    if not isinstance(found, Flowrun):
        raise UsageError(f"{target} is {_a(found)}, not a Flowrun{_instead(module, '')}")
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(f"importing {name!r}", error) from None
        near = get_close_matches(name, [module.name for module in pkgutil.iter_modules([str(Path.cwd())])], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no module {error.name!r} in {Path.cwd()} or on sys.path{hint}") from None
    except FlowrunError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code
        raise _broken(f"importing {name!r}", error) from None


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageError(f"module {module.__name__!r} has no {path!r}{_instead(module, path)}") from None
    return found


def _call(factory: Any, target: str) -> Any:
    try:
        return factory()
    except FlowrunError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code
        raise _broken(f"calling {target}()", error) from None


def _instead(module: ModuleType, path: str) -> str:
    """The names that were perhaps meant: apps first, then what is spelled alike."""
    apps = [name for name, value in vars(module).items() if isinstance(value, Flowrun)]
    near = apps or get_close_matches(path, [name for name in vars(module) if not name.startswith("_")], 3)
    return f"; did you mean {' or '.join(f'{module.__name__}:{name}' for name in near)}?" if near else ""


def _broken(doing: str, error: Exception) -> BrokenModule:
    """Show the part of the traceback that lies in the user's code."""
    frame = error.__traceback__
    while frame is not None and _ours(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    terminal.say(redact("".join(traceback.format_exception(type(error), error, frame)).rstrip()))
    return BrokenModule(f"{doing} failed: {type(error).__name__}: {error}")


def _ours(file: str) -> bool:
    return file == __file__ or file == importlib.__file__ or file.startswith("<frozen importlib")


def _a(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
