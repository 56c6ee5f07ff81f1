"""Keeps keys and tokens of the environment out of configurations, and so out of run folders, logs and W&B."""

import os

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


def refusal(key: str, variable: str) -> str:
    """The line that tells so, without the secret."""
    return f"{key} must not hold the secret of {variable}, it would be written down: libraries find it where it is"
