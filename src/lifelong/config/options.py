"""Do the options of a group fit what it builds? Names and plain types, read from the constructor's annotations."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

NOT_PLAIN = ("is_instance_of", "is_subclass_of", "callable_type", "needs_python_object")
"""pydantic's refusals of data for an annotation that no yaml can meet, as a tensor or a function."""


def type_error(options: Mapping[str, Any], target: Callable[..., Any], key: str) -> str | None:
    """What is wrong with the first option that `target` cannot take, in one line; None if all fit.

    Plain types only: what a number must be beyond that (>= 0, one of …) is for the constructor to say.
    """
    known, complete = parameters(target)
    for name, value in options.items():
        if name in known:
            annotation, default = known[name]
            if (what := complaint(value, annotation)) and not (value is None and default is None):
                return must_be(f"{key}.{name}", what, value)
        elif complete:
            return unknown_key(f"{key}.{name}", known, key)
    return None


def must_be(key: str, what: str, value: Any) -> str:
    """The one line of a refusal."""
    return f"{key} must be {what}, got {spelled(value)}"


def spelled(value: Any) -> str:
    """A value as yaml writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def unknown_key(wrong: str, names: Iterable[str], owner: str) -> str:
    """One line that says which keys there are, and which one may have been meant."""
    known = sorted(names)
    near = get_close_matches(wrong.rpartition(".")[2], known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown key {wrong!r}{hint}: {owner} has {', '.join(known) or 'no keys'}"


def complaint(value: Any, annotation: Any) -> str | None:
    """What plain data (as yaml has it) must be instead to stand for the annotation; None if it may.

    An annotation without a plain part, as a callable or a tensor, takes anything.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # takes as long to load as --help takes in all
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value), strict=True)  # of JSON, a list may be a tuple
    except PydanticUserError:
        return None
    except ValidationError as error:
        said = [
            _words(refusal["msg"], refusal["loc"]) for refusal in error.errors() if refusal["type"] not in NOT_PLAIN
        ]
        nullable = ["null"] if said and type(None) in get_args(annotation) else []
        return " or ".join(dict.fromkeys(said + nullable)) or None
    return None


def _words(message: str, location: tuple[int | str, ...]) -> str:
    within = "".join(f" at [{index}]" for index in location if isinstance(index, int))
    must, allowed = message.startswith("Input should be "), message.removeprefix("Input should be ")
    allowed = allowed.replace("array", "list").replace("an object", "keys with values")  # of JSON
    return (allowed if must else f"valid ({allowed.lower()})") + within


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
