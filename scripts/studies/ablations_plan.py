"""Which runs each ablation of scripts/ablations.py is made of."""

from collections.abc import Iterable
from dataclasses import dataclass

ROTATED = ("dataset=rotated", "backbone.widths=[128]", "optimizer.lr=1e-3", "trainer.max_epochs=3")
CLASSES = ("dataset=split", "scenario=class", "backbone.widths=[128]", "optimizer.lr=1e-3", "trainer.max_epochs=5")
DIGITS = ("dataset=rotated", "dataset/source=digits", "backbone.widths=[32]", "optimizer=sgd", "trainer.max_epochs=10")
EXEMPLARS = ("memory=uniform", "memory.per_class=20")
TEN, FIVE = tuple(range(10)), tuple(range(5))
BEST = {"finetune": "0", "ewc": "100", "mas": "0.1", "rwalk": "1"}
"""Best decades on ROTATED by validation accuracy (seeds 0 to 2)."""


@dataclass(frozen=True)
class Arm:
    """One point of a figure: a curve's or bar's name, what differs, and where it stands on the x axis ("": no axis)."""

    label: str
    overrides: tuple[str, ...]
    x: str = ""


@dataclass(frozen=True)
class Ablation:
    """A question and its runs: every arm at every seed.

    Attributes:
        reference: the label that the others are compared with; after a comma, that of the arms which begin alike.
    """

    name: str
    question: str
    setting: str
    base: tuple[str, ...]
    arms: tuple[Arm, ...]
    reference: str
    seeds: tuple[int, ...] = TEN
    axis: str = ""


def over_decades(arms: Iterable[tuple[str, tuple[str, ...]]], low: int, high: int) -> tuple[Arm, ...]:
    """Each arm at λ = 10^low … 10^high."""
    return tuple(
        Arm(label, (*overrides, f"method.strength=1e{decade}"), f"1e{decade}")
        for label, overrides in arms
        for decade in range(low, high + 1)
    )


def variant(method: str, name: str) -> tuple[str, ...]:
    """`method` with the class of scripts/ablated in its place."""
    return (f"method={method}", f"method._target_=ablated.{name}", "trusted=[ablated]")


FISHER = Ablation(
    "fisher",
    "Which Fisher: exact, empirical, or the squared gradient of a batch's mean loss?",
    "EWC, rotated digits of MNIST, MLP 128, three epochs a task",
    ROTATED,
    over_decades(
        [
            ("exact", ("method=ewc", "method.labels=exact")),
            ("empirical", ("method=ewc", "method.labels=empirical")),
            ("batch squared", variant("ewc", "batch_fisher.BatchFisher")),
        ],
        0,
        6,
    ),
    "empirical",
    axis="λ",
)
ANCHORS = Ablation(
    "anchors",
    "An anchor for each task, or the latest alone?",
    "EWC and Online EWC (γ = 1), rotated digits of MNIST, MLP 128, three epochs a task",
    ROTATED,
    over_decades([("per task", ("method=ewc",)), ("online", ("method=online_ewc",))], 0, 6),
    "per task",
    axis="λ",
)
SI_GRADIENT = Ablation(
    "si_gradient",
    "SI's path integral: of the task's gradient, or of the penalised one?",
    "SI, rotated digits of MNIST, MLP 128, three epochs a task",
    ROTATED,
    over_decades([("task's", ("method=si",)), ("penalised", variant("si", "penalised_si.PenalisedSI"))], 0, 6),
    "task's",
    axis="λ",
)
SCP_SLICES = Ablation(
    "scp_slices",
    "SCP: how many slices, or the expectation over all of them?",
    "SCP, rotated digits of MNIST, MLP 128, three epochs a task",
    ROTATED,
    over_decades(
        [
            (label, ("method=scp", f"method.slices={label.split()[0]}"))
            for label in ("1 slice", "10 slices", "100 slices", "exact")
        ],
        1,
        4,
    ),
    "exact",
    seeds=FIVE,
    axis="λ",
)
RWALK_PARTS = Ablation(
    "rwalk_parts",
    "RWalk without each of its parts",
    "Class-incremental pairs of MNIST digits, MLP 128, five epochs, 20 exemplars a class (λ = 0: those alone)",
    CLASSES,
    (
        *over_decades(
            [
                ("whole", ("method=rwalk", *EXEMPLARS)),
                ("without path score", (*variant("rwalk", "moving_fisher.MovingFisher"), *EXEMPLARS)),
                ("without Fisher", (*variant("rwalk", "path_score.PathScore"), *EXEMPLARS)),
                ("without exemplars", ("method=rwalk",)),
            ],
            -1,
            3,
        ),
        Arm("exemplars alone", ("method=finetune", *EXEMPLARS), "0"),
    ),
    "whole",
    axis="λ",
)
RWALK_SAMPLERS = Ablation(
    "rwalk_samplers",
    "RWalk's four samplers, 10 and 20 exemplars a class",
    "Class-incremental pairs of MNIST digits, λ = 1, MLP 128, five epochs a task",
    (*CLASSES, "method=rwalk", "method.strength=1"),
    tuple(
        Arm(f"{name.replace('_', ' ')}, {num}", (f"memory={name}", f"memory.per_class={num}"))
        for name in ("uniform", "plane_distance", "entropy", "mean_of_features")
        for num in (10, 20)
    ),
    "uniform, 20",
)
STEPS = Ablation(
    "steps",
    "The penalty by its gradient or as a proximal step, over twelve decades",
    "EWC, MAS, SI and L2 by SGD 0.1, rotated 8 × 8 digits, MLP 32, ten epochs a task",
    DIGITS,
    over_decades(
        [
            (f"{method}, {step}", (f"method={method}", f"method.step={step}"))
            for method in ("ewc", "mas", "si", "l2")
            for step in ("gradient", "proximal")
        ],
        -4,
        8,
    ),
    ", gradient",
    seeds=FIVE,
    axis="λ",
)
ORDER = Ablation(
    "order",
    "How much does the order of the tasks matter?",
    "Rotated digits of MNIST in five orders, λ chosen in the given one, MLP 128, three epochs a task",
    ROTATED,
    tuple(
        Arm(method, (f"method={method}", f"method.strength={best}", f"dataset.order={order}"), order)
        for method, best in BEST.items()
        for order in ("given", "reversed", "shuffle:1", "shuffle:2", "shuffle:3")
    ),
    "finetune",
    seeds=FIVE,
    axis="order",
)
ABLATIONS = {a.name: a for a in (FISHER, ANCHORS, SI_GRADIENT, SCP_SLICES, RWALK_PARTS, RWALK_SAMPLERS, STEPS, ORDER)}
