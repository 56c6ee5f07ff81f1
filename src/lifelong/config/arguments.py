"""Do the options of a group fit what it builds? Names and plain types, read from the signature."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "values true or false"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("null", "nulls"),
}
"""One, and several."""
LISTS = (list, tuple, set, Sequence, Collection, Iterable)


def misfit(options: Mapping[str, Any], target: Callable[..., Any], key: str) -> str | None:
    """What is wrong with the first option that `target` cannot take, in one line; None if all fit.

    Plain types only: what a number must be beyond that (>= 0, one of …) is for the constructor to say.
    """
    known, complete = parameters(target)
    for name, value in options.items():
        if name in known:
            annotation, default = known[name]
            if not fits(value, annotation) and not (value is None and default is None):
                return f"{key}.{name} must be {described(annotation)}, got {spelled(value)}"
        elif complete:
            return unknown_key(f"{key}.{name}", known, key)
    return None


def unknown_key(wrong: str, allowed: Iterable[str], owner: str) -> str:
    """One line that says which keys there are, and which one may have been meant."""
    near = get_close_matches(wrong.rpartition(".")[2], allowed, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown key {wrong!r}{hint}: {owner} has {', '.join(sorted(allowed)) or 'no keys'}"


def parameters(target: Callable[..., Any]) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Keyword arguments of a function or class by name: (annotation, default); and whether these are all it takes.

    A constructor that hands **options on to its base class takes what the base takes.
    """
    if not inspect.isclass(target):
        return _own_parameters(target, skip=0)
    found: dict[str, tuple[Any, Any]] = {}
    constructors = [vars(cls)["__init__"] for cls in target.__mro__ if cls is not object and "__init__" in vars(cls)]
    for constructor in constructors:
        own, complete = _own_parameters(constructor, skip=1)
        found = {**own, **found}
        if complete:
            return found, True
    return found, not constructors and target.__new__ is object.__new__


def _own_parameters(function: Callable[..., Any], skip: int) -> tuple[dict[str, tuple[Any, Any]], bool]:
    try:
        signature, hints = inspect.signature(function), get_type_hints(function)
    except (ValueError, TypeError, NameError, AttributeError):  # C code, or names imported for type checkers alone
        return {}, False
    own = list(signature.parameters.values())[skip:]
    named = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: (hints.get(p.name, Any), p.default) for p in named}, not any(p.kind is p.VAR_KEYWORD for p in own)


def fits(value: Any, annotation: Any) -> bool:
    """Whether plain data (as yaml has it) may stand for the annotation; true if the annotation has no plain part."""
    if not described(annotation):
        return True
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in inner if described(part))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is Path:
        return isinstance(value, str)
    if annotation in WORDS:
        return type(value) is annotation
    if _is_mapping(origin or annotation):
        return isinstance(value, dict)
    element = inner[0] if inner else Any
    return isinstance(value, list) and all(fits(v, element) for v in value)


def described(annotation: Any) -> str:
    """The plain data that fit an annotation, in words; "" if it has no plain part."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation][0]
    if origin in (Union, UnionType):
        parts = [part for part in _alternatives(annotation) if not (part is int and float in inner)]
        choices = [str(c) for part in parts if get_origin(part) is Literal for c in get_args(part)]
        words = ["one of " + ", ".join(dict.fromkeys(choices))] if choices else []
        return " or ".join([*words, *filter(None, (described(p) for p in parts if get_origin(p) is not Literal))])
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if _is_mapping(origin or annotation):
        return "keys with values"
    if (origin or annotation) in LISTS:
        element = WORDS.get(inner[0]) if inner else None
        return "a list" + (f" of {element[1]}" if element else "")
    return ""


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, of unions within it too."""
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _alternatives(inner)]


def _is_mapping(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Mapping)


def spelled(value: Any) -> str:
    """A value as yaml writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
