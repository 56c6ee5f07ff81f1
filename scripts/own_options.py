"""Command lines of scripts that take options of their own beside those of train.py."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lifelong.config.overrides import search_path
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors


def own_options(arguments: Sequence[str], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(each key of `defaults` with the value it is given, the other arguments)."""
    pairs = [(argument.partition("=")[0], argument.partition("=")[2]) for argument in arguments]
    others = [argument for argument, (key, _) in zip(arguments, pairs, strict=True) if key not in defaults]
    return {**defaults, **{key: value for key, value in pairs if key in defaults}}, others


def whole_number(own: Mapping[str, str], key: str, least: int) -> int:
    """Raises ConfigError unless the option is an integer >= least."""
    if not own[key].isdecimal() or int(own[key]) < least:
        raise ConfigError(f"{key} must be an integer >= {least}, got {own[key]!r}")
    return int(own[key])


def with_search_path(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--config-dir DIR` as the override that it stands for; raises ConfigError as that does."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir")
    own, others = parser.parse_known_args(arguments)
    return [*others, *search_path(own.config_dir)]


def run_script(main: Callable[[Sequence[str]], Any], description: str | None) -> None:
    """The description if it is asked for; else what `main` returns of the command line, if anything, on stdout."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(description)
        return
    with one_line_errors():
        result = main(with_search_path(sys.argv[1:]))
        if result is not None:
            print(result)
