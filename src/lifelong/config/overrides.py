"""The command line before Hydra sees it."""

from collections.abc import Iterator, Sequence

from lifelong.config.credentials import exposed, refusal
from lifelong.config.groups import GROUPS, LOGGER, choices
from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError

SEVERAL = (LOGGER, "experiment", "sweep")
"""Groups of which several may be chosen at once: logger=[csv,wandb]."""
ROOTS = {group.partition(".")[0] for group in (*GROUPS, LOGGER)}


def checked(overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra takes them.

    An option of a group gets Hydra's `++`, as no yaml need name it: `check` knows what its class takes. A text with
    letters beyond ASCII gets quotes.

    Raises:
        ConfigError: a secret of the environment, or a group that is null or several.
    """
    return list(_completed(overrides))


def _completed(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        key, equals, value = override.partition("=")
        plain = key.lstrip("+~")
        if variable := exposed(override):
            raise ConfigError(refusal(plain, variable))
        if "/" in plain or plain in (*ROOTS, *SEVERAL):
            _check_choice(plain, value)
        elif key.partition(".")[0] in ROOTS and equals:
            key = f"++{key}"
        quoted = not value.isascii() and value[0] not in "'\"[{"
        yield f"{key}='{value}'" if quoted else f"{key}{equals}{value}"


def _check_choice(group: str, value: str) -> None:
    names = value.strip("[]").split(",")
    several = value.startswith("[") and (group not in SEVERAL or (len(names) > 1 and "none" in names))
    if value == "null" or (several and not group.startswith("hydra/")):
        raise ConfigError(must_be(group, f"one of {', '.join(choices(group))}", None if value == "null" else value))
