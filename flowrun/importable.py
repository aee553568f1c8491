"""Functions that another process finds again: by module and name, which come from this program, never from a job."""

from __future__ import annotations

import importlib
import inspect
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from flowrun.errors import ConfigurationError

_MAIN = "__main__"
_GUARDED = "__mp_main__"
"""What a script is called in another process, as in multiprocessing: its ``if __name__ == "__main__"`` is not taken."""


class Address(NamedTuple):
    """Where a function is defined."""

    module: str
    name: str


_loading: list[Address] = []
"""What this process imports right now, if it does only that."""


class NotFoundThere(LookupError):
    """The function is not there in this process."""


def address(function: Callable[..., Any], where: str) -> Address:
    """Where another process finds ``function``. Raises ConfigurationError if it cannot."""
    if not inspect.isfunction(function):
        raise ConfigurationError(f"{where}: with process=True a handler is a plain function, not {function!r}")
    if "<" in function.__qualname__:
        raise ConfigurationError(
            f"{where}: with process=True a handler is defined at the top level of a module, where its process can "
            f"import it; {function.__qualname__!r} is inside a function"
        )
    if function.__module__ == _MAIN and not any(program().values()):
        raise ConfigurationError(
            f"{where}: with process=True a handler is in a file, not in what was typed or piped in"
        )
    return Address(function.__module__, function.__qualname__)


def program() -> dict[str, str | None]:
    """How another process can import this one's ``__main__``."""
    main = sys.modules.get(_MAIN)
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return {
        "module": None if spec is None else spec.name,
        "file": str(Path(file).absolute()) if spec is None and file is not None and Path(file).exists() else None,
    }


def find(where: Address, main: Mapping[str, str | None]) -> Any:
    """What is at ``where``; ``main`` is the other process's :func:`program`. Raises NotFoundThere, or what the import
    does."""
    _loading.append(where)
    try:
        module = _main(main) if where.module == _MAIN else importlib.import_module(where.module)
    finally:
        _loading.clear()
    found: Any = module
    for part in where.name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise NotFoundThere(f"module {where.module!r} has no {where.name!r} once it is imported in another process")
    return found


def refuse_while_loading() -> None:
    """Raise ConfigurationError in a process that only imports a program to find a function in it."""
    if _loading:
        raise ConfigurationError(
            "this program works as soon as it is imported, and so it would in each process of a handler with "
            "process=True; put what it does under if __name__ == '__main__':"
        )


def _main(main: Mapping[str, str | None]) -> ModuleType:
    if _GUARDED not in sys.modules:
        if main["module"] is not None:
            module = importlib.import_module(main["module"])
        else:
            module = ModuleType(_GUARDED)
            module.__dict__.update(runpy.run_path(str(main["file"]), run_name=_GUARDED))
        sys.modules[_MAIN] = sys.modules[_GUARDED] = module
    return sys.modules[_GUARDED]
