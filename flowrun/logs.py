"""Flowrun's loggers, which nobody silences by accident.

``logging.config.dictConfig`` disables every logger that exists already and is not named, unless it is told otherwise,
and most programs configure their logging after their imports. So a logger is looked up, and enabled, when something is
said. Who wants to hear less sets a level: ``logging.getLogger("flowrun").setLevel(logging.ERROR)``.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class Log(_Adapter):
    """The logger of a name, as it is when something is said: ``Log("flowrun.worker").warning("...")``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.extra = None

    @property
    def logger(self) -> logging.Logger:  # type: ignore[override] # the adapter has it as an attribute
        """The logger itself."""
        found = logging.getLogger(self._name)
        found.disabled = False
        return found

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """As it is: there is nothing to add."""
        return msg, kwargs
