"""Domains: every task is a source of its own, all in one shape and one label space, wired from named entries."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import lifelong
from lifelong.config.schema import ConfigError
from lifelong.data import examples as examples_module
from lifelong.data.domains import Domains, in_shape
from lifelong.data.examples import Examples
from lifelong.data.source import Source

TINY = ("backbone.widths=[8]", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "progress=false")
SMALL = ("dataset=domains", "dataset/source@dataset.sources.a=digits", "dataset/source@dataset.sources.b=digits")


def source(name: str, shape: tuple[int, int, int], num_classes: int, num: int = 40) -> Source:
    g = torch.Generator().manual_seed(len(name) + num_classes)

    def part(size: int) -> Examples:
        images = torch.randint(0, 256, (size, *shape), generator=g).to(torch.uint8)
        return Examples(images, torch.arange(size) % num_classes)

    return Source(name, part(num), part(num // 2), tuple(f"{name}{c}" for c in range(num_classes)))


def three(**stream: Any) -> Domains:
    sources = {"a": source("grey", (1, 6, 4), 3), "b": source("rgb", (3, 5, 8), 5), "c": source("grey", (1, 6, 4), 2)}
    return Domains(sources, **stream)


def test_all_tasks_have_the_largest_shape_and_names_of_their_own() -> None:
    stream = three()
    assert stream.input_shape == (3, 6, 8)
    assert stream.names == ["grey", "rgb", "grey_1"]
    for task in map(stream.task, range(3)):
        for part in (task.train, task.val, task.test):
            assert part.inputs.shape[1:] == (3, 6, 8)


@pytest.mark.parametrize(
    ("scenario", "columns"), [("domain", [(0, 3), (0, 5), (0, 2)]), ("class", [(0, 3), (3, 8), (8, 10)])]
)
def test_columns_are_labels_in_one_space_or_each_task_s_own(scenario: str, columns: list[tuple[int, int]]) -> None:
    stream = three(scenario=scenario)
    assert stream.num_classes == max(end for _, end in columns)
    for task, (start, end) in zip(map(stream.task, range(3)), columns, strict=True):
        assert task.classes == tuple(range(start, end))
        assert sorted(set(task.train.labels.tolist())) == list(range(start, end))
        assert torch.equal(task.test.labels, start + stream.sources[task.base].test.labels)
    assert stream.visible(2, 0) == tuple(range(stream.num_classes))


def test_each_source_is_split_as_it_would_be_alone() -> None:
    own = source("grey", (1, 6, 8), 4)
    together = Domains({"x": source("rgb", (3, 6, 8), 2), "y": own}, channels=None, seed=3).task(1)
    alone = Domains({"y": own}, seed=3).task(0)
    assert together.val.inputs[:, :1].equal(alone.val.inputs)
    assert together.train.labels.equal(alone.train.labels)
    assert Domains({"y": own}).task(0).test.inputs is own.test.inputs, "images of the right shape are not copied"


@pytest.mark.parametrize("size", [(9, 9), (3, 4), (6, 16)])
def test_resizing_is_torch_s_antialiased_bilinear_of_each_image(size: tuple[int, int], monkeypatch: Any) -> None:
    images = source("rgb", (3, 6, 8), 2, num=7).train.inputs
    expected = torch.cat(
        [F.interpolate(image[None].float(), size, mode="bilinear", antialias=True).round() for image in images]
    )
    monkeypatch.setattr(examples_module, "CHUNK", 3)
    assert in_shape(images, (3, *size)).equal(expected.clamp(0, 255).to(torch.uint8))


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    grey = source("grey", (1, 3, 3), 2).train.inputs
    assert in_shape(grey, (4, 3, 3)).equal(grey.expand(-1, 4, -1, -1))
    plane = torch.full((2, 1, 4, 4), 77, dtype=torch.uint8)
    assert in_shape(plane, (3, 9, 2)).unique().tolist() == [77]
    assert in_shape(plane.expand(2, 3, 4, 4), (1, 4, 4)).unique().tolist() == [77]
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert in_shape(red, (1, 1, 1)).item() == round(0.299 * 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"dataset.size must be an integer >= 1, \[height, width\] or null, got 0"),
        ({"size": [4]}, "dataset.size must be"),
        ({"size": [4, 2.5]}, "dataset.size must be"),
        ({"channels": 2}, "dataset.channels must be 1 or 3 or null, as dataset.sources.b has 3, got 2"),
        ({"channels": 0}, "dataset.channels must be an integer >= 1 or null, as dataset.sources.a has 1, got 0"),
    ],
)
def test_impossible_shapes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        three(**settings)


def test_no_sources_or_such_as_a_network_cannot_share_are_refused() -> None:
    one, other = source("grey", (1, 6, 8), 4), source("grey", (1, 6, 8), 4)
    features = Examples(torch.rand(8, 5), torch.arange(8) % 2)
    mine = Source("mine", features, features, ("a", "b"))
    for sources, message in (
        ({}, "dataset.sources must hold at least one source, got none"),
        (
            {"a": one, "b": replace(other, as_input=lambda images: images / 100)},
            "dataset.sources must share one as_inp",
        ),
        ({"a": one, "b": mine}, r"dataset.sources.b takes images alone, .* got float32 \(5,\) of source mine"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            Domains(sources)


def test_third_source_is_added_on_the_command_line(tmp_path: Path) -> None:
    third = ("+dataset/source@dataset.sources.c=digits", "dataset.sources.c.test_fraction=0.5")
    result = lifelong.run(*SMALL, *TINY, *third, "dataset.size=6", "scenario=class", f"root={tmp_path}")
    assert result.names == ["digits", "digits_1", "digits_2"]
    assert result.metrics["source"] == "digits+digits+digits"
    assert result.folder.name.startswith("ewc-domains-digits-digits-digits-s0-")
    assert lifelong.load(result.folder)(torch.zeros(2, 1, 6, 6)).shape == (2, 30)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.sources.a.test_fraction=2"], "dataset.sources.a.test_fraction must be a number in (0, 1), got 2"),
        (["dataset.sources.a.tset_fraction=2"], "unknown key 'dataset.sources.a.tset_fraction'"),
        (["+dataset.sources.c=3"], "dataset.sources.c must be one of "),
        (["dataset/source=digits"], "Could not override 'dataset/source'."),
        (["dataset/source@dataset.sources.b=none"], "dataset/source must be one of "),
    ],
)
def test_wrong_sources_are_refused_by_their_own_key(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        lifelong.run(*SMALL, *TINY, *overrides, f"root={tmp_path}")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
