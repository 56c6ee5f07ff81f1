"""XdG: context-dependent gating (Masse et al. 2018, arXiv 1802.01569)."""

import torch
from torch import Tensor

from lifelong.data.seeds import derived_generator
from lifelong.data.stream import Task
from lifelong.methods.guards import check_number
from lifelong.methods.isolation import Gated


class XdG(Gated):
    """In each hidden layer a random set of units, drawn once for each task, is switched off whenever the task is on.

    Before a task is learned it has no gates.

    Args:
        share: of the units of a layer that are off.
    """

    state = ("seeds",)

    seeds: dict[int, Tensor]
    """By base task."""

    def __init__(self, share: float = 0.8) -> None:
        check_number("share", share, low=0, high=1)
        self.share, self.seeds = share, {}
        self._gates: dict[tuple[int, int], Tensor] = {}

    def check_layer(self, layer: int, num_units: int) -> None:
        if round(self.share * num_units) >= num_units:
            raise ValueError(
                f"method.share must leave each layer some of its units, got {self.share}, by which layer {layer + 1} "
                f"has none of {num_units}"
            )

    def before_task(self, task: Task) -> None:
        self.seeds.setdefault(task.base, torch.tensor(self.seed))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # which cannot trace how a gate is drawn
    def gate(self, base: int, layer: int, num_units: int) -> Tensor | None:
        if base not in self.seeds:
            return None
        if (base, layer) not in self._gates:
            seed = self.seeds[base]
            order = torch.randperm(num_units, generator=derived_generator(int(seed), layer))
            self._gates[base, layer] = (order >= round(self.share * num_units)).to(seed.device)
        return self._gates[base, layer]
