"""The site's reference of configuration keys lists every key, with a meaning."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from lifelong.config.groups import CONFIGS, choices
from lifelong.config.options import parameters
from lifelong.config.schema import Config, Recipes, Watching
from runs import composed_once
from website.key_pages import groups, key_pages, root_keys, yamls
from website.links import DOCS, LINK, ROOT, TEXTS, led_right

RECIPES = ("experiment", "sweep")
"""Groups whose yamls set keys of other groups and have none of their own."""
CHOICES = [path for group in groups() if group not in RECIPES for path in yamls(group)]
PAGES = key_pages()
ROOT_KEYS = [name for owner in (Recipes, Watching, Config) for name, *_ in root_keys(owner)]


def dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        elif name not in ("defaults", "_target_"):
            yield prefix + name


def group_of(path: Path) -> tuple[str, ...]:
    return path.parent.relative_to(CONFIGS).parts


def test_every_yaml_says_what_it_is() -> None:
    silent = [str(path) for group in groups() for path in yamls(group) if not path.read_text().startswith("# ")]
    assert silent == []


def test_every_key_of_the_root_has_a_meaning() -> None:
    assert {field.name for field in fields(Config)} == set(ROOT_KEYS), "write a comment behind these keys"


def test_every_key_of_a_yaml_has_a_comment() -> None:
    """Its own, that of the same key in a base yaml, or ${a root key}."""
    silent = []
    for path in CHOICES:
        body = yaml.safe_load(path.read_text()) or {}
        bases = [path.with_name(f"{base}.yaml") for base in body.get("defaults", ()) if isinstance(base, str)]
        lines = "\n".join(text.read_text() for text in (path, *bases) if text.exists())
        names = [name.rpartition(".")[2] for name in dotted(body)]
        silent += [f"{path}: {n}" for n in names if not re.search(rf"\b{n}: (.*#|\$\{{\w+\}})|\n *{n}:\n", lines)]
    assert silent == [], "write a comment behind these keys"


@pytest.mark.parametrize("method", choices("method"))
def test_yaml_of_a_method_has_every_option_of_its_class(method: str) -> None:
    options = dict(composed_once((f"method={method}",)).method)
    known, complete = parameters(get_class(options.pop("_target_")))
    assert complete
    assert known.keys() == options.keys()


def test_pages_say_how_an_option_is_written() -> None:
    """Recipes have none of their own; a logger's stands below its name."""
    written = {group: PAGES[f"keys/{group.replace('/', '-')}.md"].split("\n\n")[1] for group in groups()}
    assert written["dataset/source"].endswith("an option of it `dataset.source.KEY=VALUE`.")
    assert written["logger"].endswith("an option of it `logger.CHOICE.KEY=VALUE`.")
    assert [group for group, said in written.items() if "an option of it" not in said] == sorted(RECIPES)


def test_pages_list_every_key_of_a_composed_configuration() -> None:
    text = PAGES["keys/index.md"]
    ours = {name for name in composed_once(()) if name not in groups()}
    assert [name for name in ours if f"`{name}`" not in text] == []


def test_pages_show_every_yaml_as_it_is() -> None:
    for group in groups():
        text = PAGES[f"keys/{group.replace('/', '-')}.md"]
        assert [path for path in yamls(group) if f"## {path.stem}\n" not in text] == []
        assert [path for path in yamls(group) if path.read_text().strip() not in text] == []


@pytest.mark.parametrize("group", RECIPES)
def test_recipes_set_only_keys_that_are_listed(group: str) -> None:
    known = set(ROOT_KEYS)
    known |= {
        ".".join((*group_of(path), key)) for path in CHOICES for key in dotted(yaml.safe_load(path.read_text()) or {})
    }
    for path in yamls(group):
        keys = set(dotted(yaml.safe_load(path.read_text())))
        keys = {re.sub(r"^as_published\.\w+\.(\w+)(\.\w+)?$", r"method.\1", key) for key in keys}
        assert [key for key in keys if key not in known and not key.startswith("hydra.")] == [], path.name


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
