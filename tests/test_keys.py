"""The site's reference of configuration keys lists every key, with a meaning."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifelong.config.groups import CONFIGS
from lifelong.config.schema import Config, Recipes, Watching
from runs import composed_once
from website.key_pages import key_pages
from website.keys import RECIPES, groups, leaves, read, root_keys, yamls
from website.links import DOCS, LINK, ROOT, TEXTS, led_right

CHOICES = [path for group in groups() if group not in RECIPES for path in yamls(group)]
PAGES = key_pages()
ROOT_KEYS = [key for owner in (Recipes, Watching, Config) for key in root_keys(owner)]


def dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        elif name not in ("defaults", "_target_"):
            yield prefix + name


def test_every_yaml_says_what_it_is() -> None:
    assert [str(path) for group in groups() for path in yamls(group) if not read(path).meaning] == []


def test_every_key_has_a_meaning() -> None:
    silent = [
        f"{path.relative_to(CONFIGS)}: {key.name}" for path in CHOICES for key in read(path).keys if not key.meaning
    ]
    silent += [f"root: {key.name}" for key in ROOT_KEYS if not key.meaning]
    silent += [
        f"train.yaml: {name}" for name, _, meaning in leaves((CONFIGS / "train.yaml").read_text()) if not meaning
    ]
    assert silent == [], "write a comment behind these keys"


def test_pages_list_every_key_of_a_composed_configuration() -> None:
    text = "".join(PAGES.values())
    ours = {name for name in composed_once(()) if name not in groups()}
    assert [name for name in ours if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_page_of_a_group_lists_every_key_of_its_yamls(path: Path) -> None:
    group = path.parent.relative_to(CONFIGS)
    text = PAGES[f"keys/{str(group).replace('/', '-')}.md"]
    section = text.partition(f"\n## {path.stem}\n")[2].partition("\n## ")[0]
    keys = [name for name in (yaml.safe_load(path.read_text()) or {}) if name not in ("defaults", "_target_")]
    assert [name for name in keys if f"`{'.'.join(group.parts)}.{name}`" not in section] == []


@pytest.mark.parametrize("group", RECIPES)
def test_recipes_set_only_keys_that_are_listed(group: str) -> None:
    known = {key.name for key in ROOT_KEYS}
    known |= {
        ".".join((*path.parent.relative_to(CONFIGS).parts, key.name)) for path in CHOICES for key in read(path).keys
    }
    for path in yamls(group):
        keys = set(dotted(yaml.safe_load(path.read_text())))
        assert [key for key in keys if key not in known and not key.startswith("hydra.")] == [], path.name


def test_value_and_comment_are_told_apart() -> None:
    text = '# A: b\nlr: 0.1  # rate "#1"\nname: "x # y"  # says\nlist: [a, "#"]\nnested:\n  deep: {k: 1}  # of it\n'
    assert list(leaves(text)) == [
        ("lr", "0.1", 'rate "#1"'),
        ("name", '"x # y"', "says"),
        ("list", '[a, "#"]', ""),
        ("nested.deep", "{k: 1}", "of it"),
    ]


def test_own_comment_wins_over_the_base_and_both_over_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("website.keys.CONFIGS", tmp_path)
    group = tmp_path / "group"
    group.mkdir()
    (group / "base.yaml").write_text("# Base.\na: 1  # of base\nb: 2  # of base\nc: ${seed}\n")
    (group / "own.yaml").write_text("# Own.\ndefaults: [base, _self_]\na: 3\nb: 4  # own\nd: 5\n")
    meanings = {key.name: key.meaning for name in ("base", "own") for key in read(group / f"{name}.yaml").keys}
    assert meanings == {"a": "of base", "b": "own", "c": "the key `seed` of the root", "d": ""}


@pytest.mark.parametrize("path", [*TEXTS.values(), *sorted(DOCS.glob("*.md"))], ids=lambda path: path.stem)
def test_links_of_a_text_lead_to_what_exists(path: Path) -> None:
    linked = [path.parent / found.group(1) for found in LINK.finditer(path.read_text())]
    assert [str(target) for target in linked if not target.exists()] == []


def test_links_lead_to_pages_of_the_site() -> None:
    text = (
        "[a](docs/methods.md#x) [b](src/lifelong/importance) [c](notebooks) [d](src/lifelong/metrics.py) "
        "[e](https://arxiv.org/abs/1) [f](docs/accuracy_curves.png) [g](README.md)"
    )
    assert led_right(text, ROOT) == (
        "[a](methods.md#x) [b](api/importance.md) [c](tutorials/index.md) [d](source/src/lifelong/metrics.py.md) "
        "[e](https://arxiv.org/abs/1) [f](accuracy_curves.png) [g](index.md)"
    )
