"""Keeps keys and tokens of the environment out of configurations, and so out of run folders, logs and W&B."""

import os
from collections.abc import Iterator
from typing import Any

ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""How an environment variable's name ends that holds a secret: WANDB_API_KEY, HF_TOKEN …"""
SHORTEST = 8
"""Characters; shorter values would be found by chance in settings that have nothing to do with them."""


def exposed(text: str) -> str | None:
    """The name of the environment variable whose secret stands in `text`, or is asked for there by ${oc.env:…}."""
    for name, value in os.environ.items():
        if name.upper().endswith(ENDINGS) and len(value) >= SHORTEST and (value in text or f"oc.env:{name}" in text):
            return name
    return None


def exposures(config: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, environment variable) of each value of a plain configuration that holds a secret."""
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            if key != "_target_":  # names a class, which may well be called like somebody's password
                yield from exposures(value, f"{above}{key}.")
    elif isinstance(config, str) and (name := exposed(config)):
        yield above.rstrip("."), name


def refusal(key: str, variable: str) -> str:
    """The line that tells so, without the secret."""
    return f"{key} must not hold the secret of {variable}, it would be written down: libraries find it where it is"
