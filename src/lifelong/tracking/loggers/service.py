"""What loggers share that write to a program of their own, which may be missing or go away."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


class Forgiving:
    """A logger whose program may fail: it says so once, in one line on stderr, and drops what comes after.

    Training goes on, and history.jsonl has every row.
    """

    has_failed = False

    def attempt(self, action: Callable[[], Any]) -> None:
        """Call it unless an earlier call raised."""
        if self.has_failed:
            return
        try:
            action()
        except Exception as error:
            self.has_failed = True
            print(f"{type(self).__name__} stopped ({one_line(error)}): history.jsonl has every row", file=sys.stderr)


def required(module: str, extra: str) -> Any:
    """The module of an optional package.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is not installed: pip install 'lifelong[{extra}]'") from error


def one_line(error: Exception) -> str:
    """What went wrong, cut to 200 characters; the error's type if it does not say."""
    text = " ".join(str(error).split("\n")[0].split())[:200]
    return type(error).__name__ if text in ("", "<no message>") else text
