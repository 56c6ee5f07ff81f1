"""The plane through three solutions keeps distances; what is drawn on it is the penalty and the loss themselves."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import landscape
from lifelong.config.schema import ConfigError
from lifelong.experiment.load import load
from lifelong.experiment.run import run_experiment
from lifelong.models.learner import Learner
from lifelong.models.mlp import MLP
from lifelong.plots.landscape import Footprints, Plane, losses, penalty_on, weights_of
from runs import assert_same_run, composed_tiny, run
from tiny import make_learner, split
from tiny import weights_of as state_of


def random_points(num: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def set_weights(learner: Learner, point: Tensor) -> None:
    torch.nn.utils.vector_to_parameters(point.to(torch.float32), learner.backbone.parameters())


def test_axes_are_orthonormal_and_the_three_points_lie_on_the_plane() -> None:
    points = random_points(3, 50)
    plane = Plane.through(*points)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    assert float(plane.height(points).max()) < 1e-12
    found = plane.coordinates(points)
    assert found[0].tolist() == [0, 0]
    assert found[1, 0] > 0
    assert abs(float(found[1, 1])) < 1e-12
    assert found[2, 1] > 0


def test_coordinates_are_distances_and_those_of_the_closest_point() -> None:
    plane = Plane.through(*random_points(3, 50))
    places = random_points(7, 2, seed=1)
    torch.testing.assert_close(plane.coordinates(plane.points(places)), places)
    torch.testing.assert_close(torch.cdist(plane.points(places), plane.points(places)), torch.cdist(places, places))
    point = random_points(1, 50, seed=1)[0]
    near = plane.points(plane.coordinates(point) + 0.1 * places)
    assert ((point - near).norm(dim=1) > plane.height(point)).all()


@pytest.mark.parametrize("third", [0.0, 1.0, 2.5])
def test_points_on_a_line_have_no_plane(third: float) -> None:
    a, b = random_points(2, 50)
    with pytest.raises(ValueError, match="points must not lie on a line"):
        Plane.through(a, b, a + third * (b - a))


def test_penalty_on_the_plane_is_the_sum_over_weights() -> None:
    anchor, importance = random_points(2, 50, seed=1)
    plane = Plane.through(*random_points(3, 50))
    places = random_points(5, 2, seed=2)
    slow = [sum(importance[i].abs() * (point[i] - anchor[i]) ** 2 for i in range(50)) for point in plane.points(places)]
    torch.testing.assert_close(penalty_on(plane, places, anchor, importance.abs()), torch.stack(slow))


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_loss_at_a_point_is_the_mean_over_single_samples(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.plots.landscape.BATCH_SIZE", 25)  # the last batch is smaller
    stream = split(scenario)
    learner = make_learner(stream, "cnn")
    learner.show(stream.visible(0, 0))
    weights = weights_of(learner.backbone)
    points = weights + 0.1 * random_points(3, len(weights))
    before = state_of(learner)
    found = losses(learner, points, stream.task(0).train)
    assert all(torch.equal(before[name], value) for name, value in state_of(learner).items())
    assert learner.training
    learner.eval()
    images, labels = learner.as_input(stream.task(0).train.inputs), stream.task(0).train.labels
    for loss, point in zip(found.tolist(), points, strict=True):
        set_weights(learner, point)
        slow = [learner.loss(images[n : n + 1], labels[n : n + 1]).item() for n in range(len(labels))]
        assert loss == pytest.approx(sum(slow) / len(slow), rel=1e-5)


def test_footprints_end_where_the_run_does_and_leave_it_as_it_was(tmp_path: Path) -> None:
    footprints = Footprints(every=2)
    watched = run_experiment(composed_tiny(tmp_path / "watched", "method=ewc"), callbacks=[footprints])
    assert_same_run(watched, run(tmp_path / "alone", "method=ewc"))
    assert footprints.steps == [[0, 2, 4, 6], [0, 2, 4, 6]]
    first, second = footprints.path(0), footprints.path(1)
    assert torch.equal(second[-1], weights_of(load(watched.folder).backbone))
    assert torch.equal(second[0], first[-1])
    assert torch.equal(footprints.anchors[1], first[-1])
    assert float(footprints.importances[0].sum()) == 0
    assert float(footprints.importances[1].sum()) > 0


QUICK = ["points=3", "samples=20", "trainer.max_epochs=2", "dataset.source.test_fraction=0.8"]


@pytest.mark.system
def test_script_draws_each_method_at_its_strengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = landscape.main([*QUICK, "methods=finetune,ewc:1e3,si", f"out={tmp_path}/new"])
    assert path.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert all(name in said for name in ("finetune", "ewc, λ = 1000", "si, λ = 1000"))


SHORT = ["points=2", "samples=5", "trainer.max_epochs=1", "dataset.source.test_fraction=0.9"]


def test_script_draws_a_method_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landscape.main([*SHORT, "methods=ewc,ewc:1000", f"out={tmp_path}"])
    one, other = [line for line in capsys.readouterr().out.splitlines() if "ewc, λ = 1000" in line]
    assert one == other


def test_script_names_the_method_that_has_no_plane(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="methods must end off the line from task 1's weights to joint"):
        landscape.main([*SHORT, "methods=joint", f"out={tmp_path}"])


def test_script_walks_as_train_does(tmp_path: Path) -> None:
    options = ["dataset/source=digits", "dataset.angles=[0,30]", "backbone.widths=[8]"]
    options += ["trainer=cpu", "trainer.max_epochs=1"]
    found = landscape.walk(*landscape.asked("mas:1", [*options, "strength_factor=3"]), str(tmp_path), 10)
    assert (found.name, found.scale) == ("mas, λ = 3", 3)
    assert torch.equal(found.path[-1], weights_of(found.learner.backbone))
    assert torch.equal(found.path[0], found.footprints.anchors[1])
    last = [float(values[-1]) for values in found.along]
    penalty = 3 * (found.path[-1] - found.path[0]).square() @ found.footprints.importances[1]
    assert last == pytest.approx([*(float(found.losses(task, found.path[-1:])) for task in range(2)), float(penalty)])


class Own(MLP):
    """A backbone of one's own."""


def test_script_draws_a_backbone_that_is_trusted(tmp_path: Path) -> None:
    own = [f"backbone._target_={__name__}.Own", f"trusted=[{__name__}]"]
    options = ["dataset/source=digits", "dataset.angles=[0,30]", "trainer=cpu", "trainer.max_epochs=1", *own]
    assert landscape.walk(*landscape.asked("finetune", options), str(tmp_path), 10).name == "finetune"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["points=1"], "points must be an integer >= 2, got '1'"),
        (["samples=none"], "samples must be an integer >= 1, got 'none'"),
        (["methods="], "methods must not be empty"),
        (["methods=ewk:1"], "method must be one of"),
        (["methods=ewc:strong"], "method.strength must be a valid number"),
        (["methods=ewc,kfac_ewc:100"], "methods must have diagonal penalties to be drawn, got kfac_ewc"),
        (["dataset.angles=[0,10,20]"], "dataset must have two tasks to be drawn, got 3"),
        (["dataset=permuted"], "dataset must have two tasks to be drawn, got 5"),
    ],
)
def test_script_refuses_before_it_trains(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscape, "run_experiment", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=message):
        landscape.main([*arguments, f"out={tmp_path}"])
