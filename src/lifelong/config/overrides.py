"""The command line before Hydra sees it: what is misspelt, ambiguous or without effect is refused in one line."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from inspect import Parameter
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.checks import trusted_target
from lifelong.config.groups import GROUPS, LOGGER, choices
from lifelong.config.options import allowed, must_be, parameters, unknown_key
from lifelong.config.schema import Config, ConfigError, compose

ROOT = {field.name: get_type_hints(Config)[field.name] for field in fields(Config)}
"""Keys of the configuration, with their types; a group's is Any."""
SEARCHPATH = "hydra.searchpath"
"""Where else groups have choices."""
SWEEPING = ("experiment", "sweep")
"""Groups that may say what a multirun goes over. Like loggers they can be several at once: sweep=[methods,seeds]."""


def checked(overrides: Sequence[str], *, multirun: bool = False) -> list[str]:
    """The overrides, completed so that Hydra takes them.

    An option that its class has and no yaml names gets Hydra's `++`, a text with letters beyond ASCII gets quotes, and
    ~logger means logger=none.

    Raises:
        ConfigError: no override at all, an unknown key or group, a value of the wrong type, several without a multirun.
    """
    parsed = [_parsed(text) for text in overrides]
    for override in parsed:
        _check_value(override, multirun)
    return [_completed(override, parsed) for override in parsed]


def check_sweep(overrides: Sequence[str], *, multirun: bool) -> str | None:
    """What to tell about an experiment whose own sweep will not start; None if there is nothing to tell.

    Raises:
        ConfigError: `sweep` without a multirun, or several experiments in turn, each with a sweep of its own.
    """
    parsed = [_parsed(text) for text in overrides]
    given = {override.key_or_group for override in parsed}
    for override in parsed:
        group, values = override.key_or_group, _values(override)
        if group not in SWEEPING or override.type is OverrideType.DEL or values == [[]]:
            continue
        if group == "sweep" and not multirun:
            raise ConfigError(f"{override.input_line} starts several runs and wants --multirun (-m)")
        swept = {key for value in values for key in _swept(parsed, group, value)} - given
        keys = ", ".join(sorted(swept))
        if swept and len(values) > 1:
            raise ConfigError(
                f"{group} must be one at a time, as it sweeps itself over {keys}, got {override.get_value_string()}"
            )
        if swept and not multirun:
            return f"{override.input_line} sweeps over {keys} with --multirun (-m); this is one run of it"
    return None


def _swept(parsed: Sequence[Override], group: str, value: Any) -> set[str]:
    """The keys a multirun goes over when `group` is `value`."""
    params = _skeleton(parsed, group, value).hydra.sweeper.get("params") or {}
    return {str(key).lstrip("+") for key in params}


def _parsed(text: str) -> Override:
    parser = OverridesParser.create()
    key, _, value = text.partition("=")
    try:
        return parser.parse_override(text)
    except HydraException as error:
        if not value.isascii() and "'" not in value:
            return parser.parse_override(f"{key}='{value}'")
        reason = " ".join(str(error).split())
        raise ConfigError(f"override {text!r} must be written key=value: {reason}") from error


def _values(override: Override) -> list[Any]:
    """What the key is set to, by each job of a sweep over choices; [] for other sweeps."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [v.text if isinstance(v, QuotedString) else v for v in value.list]
    return [] if override.is_sweep_override() else [value]


def _is_group(key: str) -> bool:
    return "/" in key or ROOT.get(key) is Any


def _check_value(override: Override, multirun: bool) -> None:
    """Refuse an unknown root, a root of another type, a group that is null or several, a sweep outside a multirun."""
    key, text = override.key_or_group, override.input_line
    root = key.partition("/")[0].partition(".")[0]
    if override.type is not OverrideType.ADD and root != "hydra" and root not in ROOT:
        raise ConfigError(unknown_key(key if "." not in key else root, ROOT, "the configuration"))
    if "/" in key and root in ROOT and not choices(key):
        raise ConfigError(unknown_key(key, (group.replace(".", "/") for group in GROUPS), "the configuration"))
    if override.type is OverrideType.DEL:
        if _is_group(key) and "none" not in choices(key):
            raise ConfigError(must_be(key, f"one of {', '.join(choices(key))}", None))
        return
    if override.is_sweep_override() and not multirun:
        raise ConfigError(f"{text} is ambiguous: a list is {key}=[{text.partition('=')[2]}], a sweep wants --multirun")
    for value in _values(override):
        if _is_group(key):
            if value is None or (isinstance(value, list) and key not in (*SWEEPING, LOGGER)):
                raise ConfigError(must_be(key, f"one of {', '.join(choices(key))}", value))
        elif key in ROOT:
            _check_root(key, value)


def _check_root(key: str, value: Any) -> None:
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, value)  # what it converts (yes to true) is welcome
    except OmegaConfBaseException as error:
        raise ConfigError(must_be(key, allowed(ROOT[key]) or "of another type", value)) from error


def _completed(override: Override, parsed: Sequence[Override]) -> str:
    key, text = override.key_or_group, str(override.input_line)
    if override.type is OverrideType.DEL and _is_group(key):
        return f"{key}=none"
    if override.type is not OverrideType.CHANGE or "." not in key or _is_group(key) or key == SEARCHPATH:
        return text
    if any(other.key_or_group == f"{key.rpartition('.')[0]}._target_" for other in parsed):
        return f"++{text}"  # of a class that no yaml names
    missing = [_missing(config, key) for config in _skeletons(parsed, key.partition(".")[0])]
    if all(missing):
        raise ConfigError(max(filter(None, missing), key=len))  # of the choice that has most options
    return text if all(reason is None for reason in missing) else f"++{text}"


def _missing(config: DictConfig, key: str) -> str | None:
    """None if the configuration has the key, "" if it can be added, else why not, in one line."""
    node: Any = config
    above = ""
    for name in key.split("."):
        if not isinstance(node, DictConfig):
            return unknown_key(key, [], above)
        if name not in node:
            return _cannot_add(node, above, name, config.trusted)
        node, above = node._get_node(name), f"{above}.{name}".lstrip(".")
    return None


def _cannot_add(node: DictConfig, above: str, name: str, trusted: Sequence[str]) -> str:
    """Why an option cannot be added to a node, in one line; "" if it can."""
    known: dict[str, tuple[Any, Any]] = {}
    if above.startswith("hydra"):
        complete = True
    elif complete := "_target_" in node:
        known, complete = parameters(trusted_target(node._target_, above, trusted))
    if name in known or not complete:
        return ""
    options = {str(key) for key in node if key != "_target_"}
    options |= {key for key, (_, default) in known.items() if default is not Parameter.empty}
    return unknown_key(f"{above}.{name}", options, above)


def _skeletons(parsed: Sequence[Override], group: str) -> list[DictConfig]:
    """The configuration by its choices alone, for each choice of `group` that a sweep goes over."""
    swept = next((o for o in parsed if o.key_or_group == group and o.is_sweep_override()), None)
    return [_skeleton(parsed, group, value) for value in _values(swept)] if swept else [_skeleton(parsed)]


def _skeleton(parsed: Sequence[Override], group: str = "", value: Any = None) -> DictConfig:
    """The configuration by its choices and its root's keys; `group` is `value`, another one that is swept its first."""
    chosen = []
    for override in parsed:
        key, values = override.get_key_element(), _values(override)
        if override.key_or_group == group:
            values = [value]
        if values and ("." not in override.key_or_group or override.key_or_group == SEARCHPATH):
            swept = override.is_sweep_override() or override.key_or_group == group
            chosen.append(f"{key}={_written(values[0])}" if swept else _completed(override, parsed))
    return _composed(tuple(chosen))


def _written(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose(overrides, with_hydra=True)
