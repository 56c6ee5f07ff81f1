"""Normalisation: what every consumer of a network feeds it, by the learner's own as_input."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lifelong
from evaluate import evaluate
from lifelong.config.schema import ConfigError
from lifelong.data.examples import Examples, Lazy, as_input
from lifelong.data.normalise import Normalise, first_task, given, mean_and_std, none
from lifelong.data.source import Source
from lifelong.data.sources.digits import digits
from lifelong.data.split import Split
from lifelong.data.stream import TaskStream
from lifelong.models.learner import Learner

IMAGES = torch.randint(0, 200, (50, 3, 4, 5), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
TINY = ("dataset=split", "dataset/source=digits", "dataset.classes_per_task=5", "backbone.widths=[8]", "trainer=cpu")
TINY += ("trainer.max_epochs=1", "logger=none", "progress=false", "scenario=class", "memory=entropy")


def stream(inputs: Tensor = IMAGES, as_input: Any = as_input) -> TaskStream:
    examples = Examples(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    return Split(Source("only", examples, examples, ("a",), as_input), 1, val_fraction=0.0)


def test_mean_and_std_are_those_of_the_pixels_per_channel() -> None:
    pixels = IMAGES.double() / 255
    mean, std = mean_and_std(stream().task(0).train)
    lazy = Lazy(lambda index: IMAGES[49 - index], IMAGES.shape, IMAGES.dtype)
    assert mean_and_std(Examples(lazy, torch.zeros(50, dtype=torch.int64))) == (mean, std), "to the last digit"
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), pixels.std((0, 2, 3), correction=0))


@pytest.mark.parametrize("as_input", [as_input, lambda images: images / 127.5 - 1])
def test_normalised_pixels_have_zero_mean_and_unit_variance(as_input: Any) -> None:
    x = first_task(stream(as_input=as_input))(IMAGES).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: given(stream(), [0.1], [1.0] * 3), r"normalise.mean must be a list of 3 numbers, one a channel"),
        (lambda: given(stream(), [0.1] * 3, [1.0] * 2), r"normalise.std must be a list of 3 numbers, one a channel"),
        (lambda: Normalise([0.0], [0.0]), r"normalise.mean must be finite and normalise.std > 0"),
        (lambda: Normalise([float("nan")], [1.0]), r"normalise.mean must be finite and normalise.std > 0"),
        (lambda: first_task(stream(IMAGES * 0 + 7)), r"normalise must be none: a channel of task a is constant"),
        (
            lambda: first_task(stream(IMAGES * 0 + 7, lambda i: i / 3)),
            r"normalise must be none: a channel of task a is",
        ),
        (lambda: first_task(stream(IMAGES / 255)), r"normalise takes images .* got float32 \(3, 4, 5\) of"),
        (lambda: given(stream(IMAGES[:, 0, 0]), [0], [1]), r"normalise takes images .* got uint8 \(5,\)"),
    ],
)
def test_impossible_normalisation_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_normalisation_stands_on_the_source_s_own_as_input() -> None:
    made = stream(as_input=lambda images: images / 100)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    for each, scale in ((stream(), 255), (made, 100)):
        x = given(each, [0.1, 0.2, 0.3], [1, 2, 4])(IMAGES)
        torch.testing.assert_close(x, (IMAGES / scale - mean) / std)
    assert none(made)(IMAGES).equal(IMAGES / 100)


def test_every_consumer_feeds_the_network_normalised_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a network is given in a run — batches, importance, evaluation, exemplars — is as_input of some images:
    with mean 2 and std 1 no value is above −1, and with none no value is below 0."""
    seen: list[tuple[float, float]] = []

    def look(module: Any, args: tuple[Tensor]) -> None:
        low, high = args[0].aminmax()
        seen.append((float(low), float(high)))

    original = Learner.__init__

    def watched(self: Learner, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.backbone.body.register_forward_pre_hook(look)  # behind both forward and features

    monkeypatch.setattr(Learner, "__init__", watched)
    for memory in ("entropy", "mean_of_features"):
        normalised = ("normalise=given", "normalise.mean=[2.0]", "normalise.std=[1.0]")
        lifelong.run(*TINY, *normalised, f"memory={memory}", f"root={tmp_path}")
        assert max(high for _, high in seen) <= -1
        seen.clear()
    lifelong.run(*TINY, f"root={tmp_path}")
    assert min(low for low, _ in seen) == 0


def test_a_loaded_learner_normalises_as_it_was_trained_to(tmp_path: Path) -> None:
    result = lifelong.run(*TINY, "normalise=first_task", f"root={tmp_path}")
    learner = lifelong.load(result.folder)
    assert isinstance(learner.as_input, Normalise)
    assert learner.as_input.mean[0] == pytest.approx(0.3, abs=0.1)
    assert lifelong.load(lifelong.run(*TINY, f"root={tmp_path}").folder).as_input is none(stream())


def halved(images: Tensor) -> Tensor:
    return images / 510


def dim_digits(**settings: Any) -> Source:
    return replace(digits(**settings), as_input=halved)


def test_a_source_s_own_as_input_must_be_given_to_load(tmp_path: Path) -> None:
    own = (f"dataset.source._target_={__name__}.dim_digits", f"trusted=[{__name__}]")
    for more in ((), ("normalise=first_task",)):
        result = lifelong.run(*TINY, *own, *more, f"root={tmp_path}")
        with pytest.raises(ConfigError, match="as_input must be given to load"):
            lifelong.load(result.folder)
        learner = lifelong.load(result.folder, as_input=halved)
        assert halved in (learner.as_input, getattr(learner.as_input, "as_input", None))
        _, found = evaluate(result.folder, [f"trusted=[{__name__}]"])
        assert found["accuracy_per_task"] == pytest.approx(result.matrix[-1].tolist(), abs=1e-6)
