"""The command line before Hydra sees it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString

from lifelong.config.credentials import exposed, refusal
from lifelong.config.groups import CONFIGS, GROUPS, LOGGER, choices
from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError

SEVERAL = (LOGGER, "experiment", "sweep")
"""Groups of which several may be chosen at once: logger=[csv,wandb]."""
SEARCH_PATH = "hydra.searchpath"
ROOTS = {group.partition(".")[0] for group in (*GROUPS, LOGGER)}


def checked(overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra takes them.

    An option of a group gets Hydra's `++`, as no yaml need name it: `check` knows what its class takes. A text with
    letters beyond ASCII gets quotes.

    Raises:
        ConfigError: a secret of the environment, or a group that is no name or several.
    """
    return list(_completed(overrides))


def search_path(config_dir: str | None) -> list[str]:
    """The override that stands for `--config-dir DIR`, in a list; none without one.

    Raises:
        ConfigError: it is no folder, or has a yaml by the name of one of ours, which comes first.
    """
    if config_dir is None:
        return []
    folder = Path(config_dir)
    if not folder.is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {config_dir!r}")
    for file in sorted(folder.rglob("*.yaml")):
        name = file.relative_to(folder)
        if (CONFIGS / name).exists():
            raise ConfigError(f"--config-dir must hold yamls of other names than ours, which come first, got {name}")
    return [f"{SEARCH_PATH}=['{folder.resolve()}']"]


def _completed(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        key, equals, value = override.partition("=")
        plain = key.lstrip("+~")
        if variable := exposed(override):
            raise ConfigError(refusal(plain, variable))
        chooses = "/" in plain or plain in (*ROOTS, *SEVERAL)
        if equals and not chooses and key.partition(".")[0] in ROOTS:
            key = f"++{key}"
        quoted = not value.isascii() and value[0] not in "'\"[{"
        completed = f"{key}='{value}'" if quoted else f"{key}{equals}{value}"
        if chooses:
            _check_choice(plain, completed)
        yield completed


def _check_choice(group: str, override: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value, of_hydra = parsed.value(), group.startswith("hydra/")
    if parsed.is_delete():
        return
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        names = choice if isinstance(choice, list) else [choice]
        named = isinstance(choice, dict) or all(isinstance(name, str | QuotedString | Glob) for name in names)
        several = isinstance(choice, list) and (group not in SEVERAL or (len(names) > 1 and "none" in names))
        if not named or (several and not of_hydra):
            known = [] if of_hydra else choices(group.partition("@")[0])
            what = f"one of {', '.join(known)}" if known else "the name of a choice"
            plain = choice is None or isinstance(choice, int | float)
            raise ConfigError(must_be(group, what, choice if plain else override.partition("=")[2]))
