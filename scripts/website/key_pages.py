"""The pages of configuration keys: one for the root, one for each group, which shows its yamls as they are."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from lifelong.config.checks import BORDERS
from lifelong.config.groups import CONFIGS
from lifelong.config.schema import Config, Recipes, Watching
from website.links import escaped

OF_OTHERS = {
    "dataset/source": "where the examples come from; each dataset names one",
    "hydra/launcher": "where the jobs of a multirun run; without it here, one after the other",
}
"""Groups that have no field in the typed root."""
SPELLED = {"True": "true", "False": "false", "None": "null", "dict": "{}", "list": "[]"}
"""A default of Python's as yaml has it."""
FIELD = re.compile(r"^    (\w+): (.+?) = (.+?)  # (.+)$", re.MULTILINE)


def yamls(group: str) -> list[Path]:
    """The choices of a group, e.g. of `dataset/source`."""
    return sorted((CONFIGS / group).glob("*.yaml"))


def groups() -> list[str]:
    """Every folder of configs/ with choices that a user makes; the text of --help is none."""
    found = {str(path.parent.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    return sorted(found - {".", "hydra/help"})


def root_keys(owner: type[Recipes] | type[Watching] | type[Config]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, meaning) of each key that one class of the typed root declares, as written there."""
    return FIELD.findall(inspect.getsource(owner))


def key_pages() -> dict[str, str]:
    """Address in the site → Markdown, in the order of reading."""
    meanings = OF_OTHERS | {key[0]: key[3] for owner in (Recipes, Watching, Config) for key in root_keys(owner)}
    pages = {_address(group): "\n\n".join(_group_page(group, meanings[group])) for group in groups()}
    return {"keys/index.md": "\n\n".join(_root_page(meanings)), **pages}


def _address(group: str) -> str:
    return f"keys/{group.replace('/', '-')}.md"


def _root_page(meanings: dict[str, str]) -> Iterator[str]:
    yield "# Configuration keys"
    yield "`python train.py KEY=VALUE GROUP=CHOICE` overrides any of them; `python train.py --cfg job` prints all."
    yield "## Groups"
    yield "A group is chosen by name (`method=mas`); each choice has keys of its own (`method.strength=1`)."
    names = {group: ", ".join(f"`{path.stem}`" for path in yamls(group)) for group in groups()}
    rows = [
        f"| [`{group}`]({_address(group).removeprefix('keys/')}) | {names[group]} | {escaped(meanings[group])} |"
        for group in names
    ]
    yield "\n".join(["| group | choices | what it is |", "|---|---|---|", *rows])
    yield "## What a run computes\n\nPart of the run id: another value is another run."
    yield _table(Config)
    yield f"## How a run is watched\n\n{Watching.__doc__}"
    yield _table(Watching)
    yield f"## Recipes\n\n{Recipes.__doc__}"
    yield _table(Recipes)
    yield f"## Chosen at first, and Hydra's own\n\n{_code(CONFIGS / 'train.yaml')}"


def _table(owner: type[Recipes] | type[Watching] | type[Config]) -> str:
    rows = []
    for name, kind, written, meaning in root_keys(owner):
        default = re.sub(r"^field\(default_factory=(?:lambda: )?(.+)\)$", r"\1", written).replace('"', "")
        allowed = BORDERS[name][1] if name in BORDERS else kind.replace("None", "null").replace("Any", "")
        if written != "MISSING":
            rows.append(f"| `{name}` | `{SPELLED.get(default, default)}` | {escaped(allowed)} | {escaped(meaning)} |")
    return "\n".join(["| key | default | allowed | meaning |", "|---|---|---|---|", *rows])


def _group_page(group: str, meaning: str) -> Iterator[str]:
    key = group.replace("/", ".")
    yield f"# Keys: {group}"
    what = escaped(meaning[0].upper() + meaning[1:])
    option = {"experiment": "", "sweep": "", "logger": ", an option of it `logger.CHOICE.KEY=VALUE`"}  # of recipes none
    yield f"{what}: `python train.py {group}=CHOICE`" + option.get(group, f", an option of it `{key}.KEY=VALUE`") + "."
    allowed = [f"- `{name}`: {escaped(border)}" for name, (_, border) in BORDERS.items() if name.startswith(f"{key}.")]
    if allowed:
        yield "\n".join(["Allowed beyond the types:\n", *allowed])
    for path in yamls(group):
        target = (yaml.safe_load(path.read_text()) or {}).get("_target_", "")
        builds = f"Builds [`{target}`][{target}].\n\n" if target.startswith("lifelong.") else ""
        yield f"## {path.stem}\n\n{builds}{_code(path)}"


def _code(path: Path) -> str:
    return f"```yaml\n{path.read_text().strip()}\n```"
