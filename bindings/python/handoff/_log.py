"""The log: from C to ``logging``."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from ._native import LogFunction

logger = logging.getLogger("handoff")

levels = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG, 5: logging.DEBUG - 5}
_lines: deque[tuple[int, bytes]] = deque()


def _keep_line(_user: Any, level: int, _target: bytes, text: bytes) -> None:
    _lines.append((level, text))


# The only callback from C, and as short as it can be: what is raised in it, as by a signal handler, would be lost.
on_log = LogFunction(_keep_line)


def log_lines() -> None:
    """Gives what C has logged to ``logging``, outside of the call."""
    while _lines:
        try:
            level, text = _lines.popleft()
        except IndexError:  # another thread was faster
            return
        logger.log(levels.get(level, logging.INFO), "%s", text.decode("utf-8", "replace"))
