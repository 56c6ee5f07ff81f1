"""The pages of configuration keys: one for the root, one for each group of choices."""

import html
import re
from collections.abc import Iterable

from lifelong.config.checks import BORDERS
from lifelong.config.groups import CONFIGS, FREEZE
from lifelong.config.schema import Config, Recipes, Watching
from website.keys import RECIPES, Choice, Key, chosen_at_first, groups, leaves, read, root_keys, yamls

OF_HYDRA = {"hydra/launcher": "where the jobs of a multirun run; without it here, one after the other"}
"""Groups that are Hydra's, and so have no field in the typed root."""


def key_pages() -> dict[str, str]:
    """Address in the site → Markdown, in the order of reading."""
    return {"keys/index.md": _root_page(), **{_address(group): _group_page(group) for group in groups()}}


def table(keys: Iterable[Key], prefix: str = "") -> str:
    """Keys as a Markdown table."""
    rows = [
        f"| `{prefix}{key.name}` | {_code(key.default)} | {_escaped(key.allowed)} | {_escaped(key.meaning)} |"
        for key in keys
    ]
    return "\n".join(["| key | default | allowed | meaning |", "|---|---|---|---|", *rows])


def _address(group: str) -> str:
    return f"keys/{group.replace('/', '-')}.md"


def _code(text: str) -> str:
    """A value as code in a table; `???` is what yaml has for a key that has no default."""
    return "must be set" if text == "???" else f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _escaped(text: str) -> str:
    """A comment as Markdown shows it letter by letter; what stands in backticks stays code, arXiv numbers are links."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [re.sub(r"([\\*_|\[\]$])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    linked = [re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", part) for part in plain]
    codes = [code.replace("|", r"\|") for code in parts[1::2]]
    return "".join(word for pair in zip(linked, [*codes, ""], strict=True) for word in pair)


def _group_meanings() -> dict[str, str]:
    root = {key.name: key.meaning for owner in (Recipes, Watching, Config) for key in root_keys(owner)}
    return {**root, "dataset/source": "where the examples come from; each dataset names one", **OF_HYDRA}


def _root_page() -> str:
    first, meanings, nested = chosen_at_first(), _group_meanings(), groups()
    rows = [
        f"| [`{group}`]({_address(group).removeprefix('keys/')}) | {_code(first.get(group, ''))} | "
        f"{', '.join(f'`{path.stem}`' for path in yamls(group))} | {_escaped(meanings[group])} |"
        for group in nested
    ]
    hydra = [Key(*leaf) for leaf in leaves((CONFIGS / "train.yaml").read_text())]
    ours = [[key for key in root_keys(owner) if key.name not in nested] for owner in (Config, Watching, Recipes)]
    return "\n\n".join(
        [
            "# Configuration keys",
            "`python train.py KEY=VALUE GROUP=CHOICE` overrides any of them; `python train.py --cfg job` prints all.",
            "## Groups",
            "A group is chosen by name (`method=mas`); each choice has keys of its own (`method.strength=1`).",
            "\n".join(["| group | default | choices | what it is |", "|---|---|---|---|", *rows]),
            "## What a run computes",
            "Part of the run id: another value is another run.",
            table(ours[0]),
            "## How a run is watched",
            _escaped(Watching.__doc__ or ""),
            table(ours[1]),
            "## Recipes",
            _escaped(Recipes.__doc__ or ""),
            table(ours[2]),
            "## Hydra's own",
            "Set once for all runs.",
            table(hydra),
        ]
    )


def _group_page(group: str) -> str:
    choices = [read(path) for path in yamls(group)]
    default = chosen_at_first().get(group)
    key = group.replace("/", ".")
    use = f"`python train.py {group}=CHOICE`" + ("" if group in RECIPES else f", an option of it `{key}.KEY=VALUE`")
    meaning = _escaped(_group_meanings()[group])
    heading = [f"# Keys: {group}", f"{meaning[0].upper()}{meaning[1:]}: {use}."]
    heading += [f"Default: `{group}={default}`."] if default else []
    if key == FREEZE.partition(".")[0]:
        heading.append(f"Each takes `{FREEZE}=[…]` as well: {BORDERS[FREEZE][1]}, which are not trained.")
    rows = [f"| [`{c.path.stem}`](#{c.path.stem}) | {_escaped(c.meaning)} |" for c in choices]
    summary = "\n".join(["| choice | what it is |", "|---|---|", *rows])
    return "\n\n".join([*heading, summary, *(_choice_section(group, choice) for choice in choices)])


def _choice_section(group: str, choice: Choice) -> str:
    lines = [f"## {choice.path.stem}", _escaped(choice.meaning)]
    if choice.target:
        ours = choice.target.startswith("lifelong.")
        lines.append(f"Builds [`{choice.target}`][{choice.target}]." if ours else f"Builds `{choice.target}`.")
    if group in RECIPES:
        return "\n\n".join([*lines, f"```yaml\n{choice.path.read_text().strip()}\n```"])
    if choice.bases:
        lines.append(f"All else as in {', '.join(f'`{base}`' for base in choice.bases)}.")
    return "\n\n".join([*lines, *([table(choice.keys, f"{group.replace('/', '.')}.")] if choice.keys else [])])
