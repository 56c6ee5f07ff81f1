"""The script-only methods do what they say, and an ablation's page is made of its table."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import ablations
import tiny
from ablated.batch_fisher import BatchFisher
from ablated.moving_fisher import MovingFisher
from ablated.path_score import PathScore
from ablated.penalised_si import PenalisedSI
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from studies.ablations_page import best_rows, differences, page
from studies.ablations_plan import ABLATIONS, Ablation, Arm


def test_batch_fisher_is_the_square_of_each_batchs_mean_gradient() -> None:
    stream = tiny.split("class")
    learner = tiny.make_learner(stream)
    learner.show(stream.visible(0, 0))
    examples = stream.task(0).train
    x, y = learner.as_input(examples.inputs), examples.labels
    assert len(y) <= 128  # one batch, in whatever order
    halves = [(x[:3], y[:3]), (x[3:], y[3:])]
    omega = BatchFisher(1.0).importance_of_task(learner, halves, torch.Generator())
    learner.zero_grad()
    F.cross_entropy(learner(x), y).backward()
    for name, p in learner.backbone.named_parameters():
        torch.testing.assert_close(omega[name], p.grad.square())


def test_rwalks_parts_add_up_to_the_whole() -> None:
    stream = tiny.permuted(2)
    held = {}
    for method in (RWalk, MovingFisher, PathScore):
        learner, penalty = tiny.make_learner(stream), method(0.0, interval=3)
        tiny.fit(learner, penalty, stream.task(0).train, penalty)
        tiny.keep(learner, penalty, stream.task(0).train)
        held[method] = penalty.importance
    for name, whole in held[RWalk].items():
        torch.testing.assert_close(held[MovingFisher][name] + held[PathScore][name], whole)


def test_penalised_si_is_si_until_there_is_a_penalty(tmp_path: Path) -> None:
    stream = tiny.permuted(3)
    for method in (SI, PenalisedSI):
        (tmp_path / method.__name__).mkdir()
    matrices = [
        tiny.run(stream, tiny.make_learner(stream), method(30.0), tmp_path / method.__name__)
        for method in (SI, PenalisedSI)
    ]
    assert torch.equal(matrices[0][:2], matrices[1][:2])  # the path of task 2 is the first that differs: seen in task 3
    ours, theirs = SI(30.0), PenalisedSI(30.0)
    for penalty in (ours, theirs):
        learner = tiny.make_learner(stream)
        for i in range(2):
            tiny.fit(learner, penalty, stream.task(i).train, penalty)
            tiny.keep(learner, penalty, stream.task(i).train)
    assert any(not torch.equal(ours.importance[n], theirs.importance[n]) for n in ours.importance)


@pytest.mark.system
def test_every_arm_composes() -> None:
    from lifelong.config.checks import check
    from lifelong.experiment.errors import composed

    for ablation in ABLATIONS.values():
        assert any(arm.label.endswith(ablation.reference) for arm in ablation.arms)
        for arm in {arm.label: arm for arm in ablation.arms}.values():
            check(composed(ablations.command(ablation, arm, 0, "runs")))


@pytest.mark.system
def test_ablation_is_trained_once_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ("dataset/source=digits", "dataset.source.test_fraction=0.8", "backbone.widths=[8]", "dataset.angles=[0,30]")
    base += ("trainer=cpu", "trainer.max_epochs=1", "log_every_n_steps=2")
    arms = tuple(Arm(m, (f"method={m}", f"method.strength={x}"), x) for m in ("ewc", "l2") for x in ("1e0", "1e30"))
    small = Ablation("anchors", "A question?", "A setting", (*base, "optimizer=sgd"), arms, "ewc", (0, 1), "λ")
    monkeypatch.setitem(ABLATIONS, "anchors", small)
    arguments = ["anchors", "--root", str(tmp_path / "runs"), "--docs", str(tmp_path)]
    text = ablations.main(arguments).read_text()
    assert (tmp_path / "ablation_anchors.png").exists()
    assert "A setting; 2 seeds, 8 runs." in text
    assert "; of all runs 4 diverged." in text
    monkeypatch.setattr(ablations, "all_runs", None)  # not asked again
    assert ablations.main(arguments[1:]).read_text() == text


def line(arm: str, x: str, seed: int, val: float, test: float, failed: str = "") -> dict[str, str]:
    values = {"arm": arm, "x": x, "seed": str(seed), "failed": failed}
    return {**values, "val_average_accuracy": str(val), "average_accuracy": str(test)}


def test_arms_are_compared_at_the_strength_that_is_best_on_validation_data() -> None:
    rows = [line("a", "1", 0, 0.5, 0.9), line("a", "10", 0, 0.6, 0.1), line("a", "100", 0, 0.9, 0.9, "Diverged")]
    assert [row["x"] for row in best_rows(rows, "a")] == ["10"]


def test_rows_of_an_older_plan_are_not_shown() -> None:
    arm = ABLATIONS["scp_slices"].arms[0]
    row = {"ablation": "scp_slices", "arm": arm.label, "x": arm.x}
    assert ablations.planned(row)
    assert not ablations.planned({**row, "x": ""})
    assert not ablations.planned({**row, "ablation": "one that is gone"})


def test_differences_are_paired_by_seed() -> None:
    ours, theirs = (
        [line(arm, "1", s, 0, a) for s, a in enumerate(both)] for arm, both in (("a", (0.5, 0.8)), ("b", (0.4, 0.6)))
    )
    assert differences(ours, theirs, with_x=False) == pytest.approx([10, 20])


def test_page_without_runs_says_so() -> None:
    assert page([]).count("Not run: `python scripts/ablations.py ") == len(ABLATIONS)
