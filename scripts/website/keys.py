"""The reference of configuration keys: defaults and meanings as configs/ and the typed root have them."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object

from lifelong.config.checks import BORDERS
from lifelong.config.groups import CONFIGS
from lifelong.config.options import parameters, spelled
from lifelong.config.schema import Config, Recipes, Watching

RECIPES = ("experiment", "sweep")
"""Groups whose yamls set keys of other groups and have none of their own."""
HEADER = re.compile(r"(?:#.*\n)*")
ROOT_VALUE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Key:
    """One key: its dotted name below the yaml's root, its default as written, what it means, and what it may be."""

    name: str
    default: str
    meaning: str
    allowed: str = ""


@dataclass(frozen=True)
class Choice:
    """One yaml: what its first lines say, what it builds, the yamls it starts from, and its own keys."""

    path: Path
    meaning: str
    target: str | None
    bases: list[str]
    keys: list[Key]


def yamls(group: str) -> list[Path]:
    """The choices of a group, e.g. of `dataset/source`."""
    return sorted((CONFIGS / group).glob("*.yaml"))


def groups() -> list[str]:
    """Every folder of configs/ with choices that a user makes; the text of --help is none."""
    found = {str(path.parent.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    return sorted(found - {".", "hydra/help"})


def chosen_at_first() -> dict[str, str]:
    """group → the choice that train.yaml makes."""
    entries = yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    named = {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}
    return {group: choice for group, choice in named.items() if isinstance(choice, str)}


def read(path: Path) -> Choice:
    """What one yaml says. A key's meaning is the comment behind it, else what a root key or a base yaml says of it."""
    text = path.read_text()
    header = HEADER.match(text)
    lines = header.group().splitlines() if header else []
    body = yaml.safe_load(text) or {}
    target = body.get("_target_")
    bases = [base for base in body.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    inherited = {
        key.name: key.meaning
        for beside in (path.with_name(f"{base}.yaml") for base in bases)
        if beside.exists()
        for key in read(beside).keys
    }
    group = ".".join(path.parent.relative_to(CONFIGS).parts)
    types = types_of(target) if target else {}
    keys = [
        Key(name, default, meaning or _of_the_root(default) or inherited.get(name, ""), allowed(group, name, types))
        for name, default, meaning in leaves(text)
    ]
    said = " ".join(line.lstrip("# ") for line in lines if not line.startswith("# @package"))
    return Choice(path, said, target, bases, keys)


def allowed(group: str, name: str, types: dict[str, str]) -> str:
    """What a key may be: as the border says that checks it, else its type; "" if neither is known here."""
    border = BORDERS.get(f"{group}.{name}" if group else name)
    return border[1] if border else types.get(name, "")


def leaves(text: str) -> Iterator[tuple[str, str, str]]:
    """(dotted name, value, comment behind it) of each key of a yaml but `_target_` and `defaults`."""

    def visit(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            name = prefix + key.value
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from visit(value, f"{name}.")
            elif name not in ("_target_", "defaults"):
                start, end = value.start_mark.index, value.end_mark.index
                yield name, text[start:end], text[end:].partition("\n")[0].partition("#")[2].strip()

    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from visit(root, "")


def types_of(target: str) -> dict[str, str]:
    """Option → its type, by the annotations of a class or function of ours; those of others say little."""
    if not target.startswith("lifelong."):
        return {}
    return {name: _type(annotation) for name, (annotation, _) in parameters(get_object(target))[0].items()}


def _type(annotation: Any) -> str:
    short = re.sub(r"\b[a-z_]\w*\.(?=\w)", "", inspect.formatannotation(annotation))
    return "" if annotation is Any else short.replace("None", "null").replace("Sequence", "list")


def _of_the_root(value: str) -> str:
    """What `${seed}` means: that it is the root's."""
    named = ROOT_VALUE.fullmatch(value)
    return f"the key `{named.group(1)}` of the root" if named else ""


def root_keys(owner: type[Recipes] | type[Watching] | type[Config]) -> list[Key]:
    """The keys that one class of the typed root declares, with the comments behind them."""
    source = inspect.getsource(owner)
    lines = source.splitlines()
    declared = {field.name: field for field in fields(owner)}
    keys = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, behind = node.target.id, lines[(node.end_lineno or 0) - 1].encode()[node.end_col_offset :].decode()
            annotation = ast.unparse(node.annotation).replace("None", "null")
            meaning = behind.partition("#")[2].strip()
            keys.append(Key(name, _default(declared[name]), meaning, allowed("", name, {name: annotation})))
    return keys


def _default(field: Any) -> str:
    value = field.default if field.default_factory is NO_DEFAULT else field.default_factory()
    return f"{value:g}" if isinstance(value, float) else spelled(value).replace("'", "")
