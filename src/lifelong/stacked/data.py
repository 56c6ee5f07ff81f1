"""What the members of a stack are trained and tested on: one batch for all of them where it is the same, else stacked.

S members, B samples, F features of an input, K output columns, T tasks.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Batches
from lifelong.data.normalise import AsInput
from lifelong.data.replay import training_batches
from lifelong.data.seeds import derive_seed
from lifelong.data.stream import Task
from lifelong.models.evaluation import BATCH_SIZE
from lifelong.stacked.network import Network
from lifelong.training.loop import Run, training_loading


class Feed:
    """The training batches of one task, epoch after epoch: (x, y) of shapes (B, F), (B,) or (S, B, F), (S, B).

    Raises:
        ValueError: members have different numbers of batches.
    """

    def __init__(self, runs: Sequence[Run], tasks: Sequence[Task], device: torch.device) -> None:
        loaders, index = {}, []
        for run, task in zip(runs, tasks, strict=True):
            key = id(run.stream), run.seed
            if key not in loaders:
                seed, how = derive_seed(run.seed, task.index), training_loading(run, device)
                loaders[key] = training_batches(run.method.examples(run.stream, task), run.batch_size, seed=seed, **how)
            index.append(list(loaders).index(key))
        self.loaders, self.index = list(loaders.values()), torch.tensor(index, device=device)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def of(self, s: int) -> Batches:
        """The loader of a member; all stand at the same batch."""
        return self.loaders[int(self.index[s])]

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batch where a loader was in this state."""
        for loader in self.loaders:
            loader.load_state_dict(state)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batches in zip(*self.loaders, strict=True):
            yield spread([b.x.flatten(1) for b in batches], self.index), spread([b.y for b in batches], self.index)


def spread(parts: Sequence[Tensor], index: Tensor) -> Tensor:
    """The one part that all members share, or a part (...) for each: (S, ...)."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts))[index]


def hidden_columns(runs: Sequence[Run], learned: int, task: int, device: torch.device) -> Tensor | None:
    """(S, 1, K) the columns that are not visible when `task` is tested after tasks 0..learned; None if all are."""
    hidden = torch.ones(len(runs), 1, runs[0].stream.num_classes, dtype=torch.bool)
    for s, run in enumerate(runs):
        hidden[s, :, list(run.stream.visible(learned, task))] = False
    return hidden.to(device) if bool(hidden.any()) else None


def hidden_in_training(run: Run, visible: Tensor | None, y: Tensor) -> Tensor | None:
    """The columns that the samples of a batch may not choose from, as in `Learner.task_loss`: (S, 1, K) those not
    `visible`, or with groups (S or 1, B, K) those of other groups."""
    groups = run.learner.groups
    if groups is None:
        return visible
    others = groups != groups[y].unsqueeze(-1)
    return others if others.dim() == 3 else others.unsqueeze(0)


@torch.no_grad()
def accuracy_rows(
    runs: Sequence[Run], network: Network, learned: int, part: str, device: torch.device, tasks: range | None = None
) -> Tensor:
    """(S, T) float64: of each member what `lifelong.models.evaluation.accuracy_row` gives."""
    by_stream = {id(run.stream): run for run in runs}.values()
    streams, as_inputs = [run.stream for run in by_stream], [run.learner.as_input for run in by_stream]
    index = torch.tensor([streams.index(run.stream) for run in runs], device=device)
    found: dict[tuple[int, ...], Tensor] = {}
    rows = torch.full((len(runs), streams[0].num_tasks), torch.nan, dtype=torch.float64)
    for j in range(streams[0].num_tasks) if tasks is None else tasks:
        visits = [stream.task(j) for stream in streams]
        bases = tuple(task.base for task in visits)
        if bases not in found:
            hidden = hidden_columns(runs, learned, j, device)
            examples: list[Examples] = [getattr(visit, part) for visit in visits]
            found[bases] = _accuracies(network, examples, as_inputs, index, hidden)
        rows[:, j] = found[bases]
    return rows


def _accuracies(
    network: Network, parts: Sequence[Examples], as_inputs: Sequence[AsInput], index: Tensor, hidden: Tensor | None
) -> Tensor:
    """(S,) float64 share of the examples that each member classifies rightly; nan if there are none.

    parts, as_inputs: of each stream; index: (S,) each member's stream.
    """
    correct = torch.zeros(len(network), dtype=torch.int64, device=index.device)
    size = max(64, BATCH_SIZE // len(network))
    for chunks in zip(*(part.chunks(size) for part in parts), strict=True):
        chunk = [c.to(index.device) for c in chunks]
        x = [as_input(c.inputs).flatten(1) for as_input, c in zip(as_inputs, chunk, strict=True)]
        z = network.logits(spread(x, index))
        z = z if hidden is None else z.masked_fill_(hidden, -torch.inf)
        correct += (z.argmax(-1) == spread([c.labels for c in chunk], index)).sum(-1)
    return correct.cpu().double() / len(parts[0])
