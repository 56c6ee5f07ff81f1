"""What a forward pass shows of the parameters: every use that has a closed form, and whether there are others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from lifelong.importance.composed import COMPOSED
from lifelong.importance.operations import READERS, Operands, Rule
from lifelong.importance.sums import trainable


@dataclass(frozen=True, eq=False)
class Use:
    """One call of an operation on trainable parameters.

    The edge of the graph behind its output is taken at the time of the call: an activation that later works in place
    on the output (ReLU) does not change whose gradient it is.
    """

    rules: dict[str, Rule]
    """By the parameter's name in the model."""
    a: Tensor
    """What the rules take of its input, in at least float32 if it is no index."""
    output: GradientEdge
    shape: torch.Size
    """Of the output, as its dtype."""
    dtype: torch.dtype
    nodes: frozenset[Node]
    """The graph between what it was given and its output."""
    operation: Callable
    last_dim: int
    window: int

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that are to lie alike: the same operation on the same parameters."""
        return self.operation, *self.rules, len(self.shape)


class Tape(TorchFunctionMode):
    """While it is entered, `uses` grows by every use of a trainable parameter that has a closed form."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(p): name for name, p in trainable(model).items()}
        self.uses: list[Use] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSED:
            with self:
                written_out = COMPOSED[func](*args, **kwargs)
            if written_out is not None:
                return written_out
        if func not in READERS or all(id(t) not in self.names for t in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        given = [t.grad_fn for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]  # before it works in place
        out = func(*args, **kwargs)
        operands = READERS[func](*args, **kwargs) if out.requires_grad else None
        if operands is not None:
            self._note(func, operands, out, given)
        return out

    def _note(self, func: Callable, operands: Operands, out: Tensor, given: list[Node | None]) -> None:
        rules = {self.names[id(t)]: rule for t, rule in operands.rules if id(t) in self.names}
        if not rules:
            return
        edge = get_gradient_edge(out)
        nodes = _between(edge.node, given)
        a = (out if operands.a is None else operands.a).detach()
        a = a.to(torch.promote_types(a.dtype, torch.float32)) if a.is_floating_point() else a
        a = operands.prepare(a)
        self.uses.append(Use(rules, a, edge, out.shape, out.dtype, nodes, func, operands.last_dim, operands.window))


def _between(node: Node, given: list[Node | None]) -> frozenset[Node]:
    """The graph from the node of an output down to those of what the operation was given."""
    found, stack = {node}, [node]
    while stack:
        for below, _ in stack.pop().next_functions:
            if below is not None and below not in given and below not in found:
                found.add(below)
                stack.append(below)
    return frozenset(found)


def used_otherwise(z: Tensor, uses: Iterable[Use], model: nn.Module) -> set[str]:
    """The parameters that reach z by any other way than the given uses, found in the graph of z.

    What reads a parameter is a consumer of its AccumulateGrad node, and has to lie inside of one of the uses.
    """
    names = {id(p): name for name, p in trainable(model).items()}
    inside: dict[str, set[Node]] = {name: set() for name in names.values()}
    for use in uses:
        for name in use.rules:
            inside[name] |= use.nodes
    others: set[str] = set()
    seen, stack = {z.grad_fn}, [z.grad_fn]
    while stack:
        node = stack.pop()
        for below, _ in node.next_functions if node is not None else ():
            reads = names.get(id(getattr(below, "variable", None)))
            if reads is not None and node not in inside[reads]:
                others.add(reads)
            if below not in seen:
                seen.add(below)
                stack.append(below)
    return others
