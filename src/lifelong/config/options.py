"""Do the options of a group fit what it builds? Names and plain types, read from the constructor's annotations."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_type_hints

ONE = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "keys with values",
    "null": "null",
}
SEVERAL = {"boolean": "values true or false", "integer": "integers", "number": "numbers", "string": "texts"}
"""Types of JSON schemas, in words."""


def misfit(options: Mapping[str, Any], target: Callable[..., Any], key: str) -> str | None:
    """What is wrong with the first option that `target` cannot take, in one line; None if all fit.

    Plain types only: what a number must be beyond that (>= 0, one of …) is for the constructor to say.
    """
    known, complete = parameters(target)
    for name, value in options.items():
        if name in known:
            annotation, default = known[name]
            if not fits(value, annotation) and not (value is None and default is None):
                return must_be(f"{key}.{name}", allowed(annotation), value)
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


def fits(value: Any, annotation: Any) -> bool:
    """Whether plain data (as yaml has it) may stand for the annotation; true if the annotation has no plain part."""
    from pydantic import ValidationError

    if not allowed(annotation):
        return True
    try:
        _adapter(annotation).validate_json(json.dumps(value), strict=True)  # of JSON, a list may be a tuple
    except ValidationError:
        return False
    return True


def allowed(annotation: Any) -> str:
    """The plain data that fit an annotation, in words; "" if it has no plain part, as a callable or a tensor."""
    from pydantic.errors import PydanticUserError

    try:
        schema = _adapter(annotation).json_schema()
    except PydanticUserError:
        return ""
    parts = schema.get("anyOf", [schema])
    literals = [str(v) for part in parts for v in part.get("enum", [part["const"]] if "const" in part else [])]
    rest = [part for part in parts if not {"enum", "const"} & part.keys()]
    if any(part.get("type") == "number" for part in rest):
        rest = [part for part in rest if part.get("type") != "integer"]
    words = ["one of " + ", ".join(literals)] if literals else []
    return " or ".join([*words, *filter(None, map(_kind, rest))])


def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # takes as long to load as --help takes in all

    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def _kind(part: Mapping[str, Any]) -> str:
    if part.get("format") == "path":
        return "a path"
    words = ONE.get(part.get("type", ""), "")
    elements = part.get("prefixItems", [part.get("items", {})]) if part.get("type") == "array" else []
    several = {SEVERAL.get(element.get("type", "")) for element in elements}
    many = f"{len(elements)} " if "prefixItems" in part else ""
    return words + (f" of {many}{several.pop()}" if len(several) == 1 and None not in several else "")


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
