"""The jobs of a sweep, as many of them as stack trained together; the others are left to run alone."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from torch.nn.modules.module import register_module_forward_hook

from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError
from lifelong.data.stream import TaskStream
from lifelong.experiment.errors import explain
from lifelong.experiment.parts import build_run, make_stream
from lifelong.experiment.result import draw, show, write_result
from lifelong.experiment.run import Request, requested, watched
from lifelong.launch.jobs import Outcome
from lifelong.launch.workers import in_workers, num_cores
from lifelong.runs.folder import RunFolderError
from lifelong.runs.identity import title
from lifelong.stacked.plan import block_key, chunks, place, reason_alone, stack_key
from lifelong.stacked.stack import Member, learn
from lifelong.tracking.gallery import Gallery
from lifelong.training.loop import new_garbage
from lifelong.training.trainer import trial_trainer

FEW = 8
"""Members that no CPU is slower with than with one: fewer leave the overhead of a step unshared."""
CACHED_BYTES = 2**21
"""Of weights: a stack with more leaves the CPU's cache from one use to the next, and is slower again."""
OUTPUT_BYTES = 2**25
"""Of a layer for a batch: a CPU's memory for more of them is mapped anew at each step, and is slower again."""
COPIES = 32
"""Of a member's weights and largest output that a device must have room for: state of optimiser and method, and what a
step makes."""


@dataclass(frozen=True)
class Job:
    """A job of the sweep that may be a member of a stack; where: its place in the stream."""

    request: Request
    stream: TaskStream
    where: tuple[int, int] = (0, 0)


@dataclass
class Plan:
    """What trains together, what does not and why.

    Attributes:
        groups: the jobs by number that may share a stack, by what they have in common.
        alone: reason → numbers of jobs.
    """

    groups: dict[str, dict[int, Job]] = field(default_factory=dict)
    alone: dict[str, list[int]] = field(default_factory=dict)

    def stacks(self, size: int | None, n_jobs: int) -> list[dict[int, Job]]:
        """The groups in stacks of at most `size` members, without a size such that `n_jobs` have work at a time; a job
        that is left over is alone."""
        found: list[dict[int, Job]] = []
        share = max(3, -(-sum(map(len, self.groups.values())) // n_jobs))  # with 2 one of 3 jobs would be left over
        for jobs in self.groups.values():
            keys = {number: block_key(job.request.config) for number, job in jobs.items()}
            most = size or min(share, default_size(next(iter(jobs.values())), n_jobs))
            for part in chunks(keys, most):
                if len(part) > 1:
                    found.append({number: jobs[number] for number in part})
                else:
                    reason = "no other run stacks with it" if len(jobs) == 1 else f"a stack holds at most {most}"
                    self.alone.setdefault(reason, []).extend(part)
        return found


def train_stacks(configs: Mapping[int, DictConfig], size: int | None, n_jobs: int | None) -> dict[int, Outcome]:
    """Train those of the jobs, by number, that stack; returns what each of them has come to.

    size: members of a stack at most; None: as many as the device is good for. n_jobs: stacks at a time, each in a
    process of its own; None: one for each core of a CPU, one on a GPU.
    Says which jobs train together, and which run alone and why. Those that are finished already are left out.

    Raises:
        ConfigError: several at a time on a GPU or with several threads each.
    """
    plan = planned(configs)
    n_jobs = _at_a_time(plan, n_jobs)
    stacks = plan.stacks(size, n_jobs)
    for reason, numbers in plan.alone.items():
        print(f"run alone ({reason}): {spans(numbers)}", flush=True)
    for stack in stacks:
        print(f"train together, {len(stack)} runs: {spans(list(stack))}", flush=True)
    num = max(1, min(n_jobs, len(stacks)))
    cores = max(1, num_cores() // num)
    with in_workers(lambda i: [train_stack(stack, cores) for stack in stacks[i::num]], num) as found:
        return {number: outcome for outcomes in chain(*found) for number, outcome in outcomes.items()}


def _at_a_time(plan: Plan, n_jobs: int | None) -> int:
    """How many stacks train at a time: `in_workers` says who may."""
    groups = [[job.request.config for job in jobs.values()] for jobs in plan.groups.values()]
    devices = {trial_trainer(configs[0]).strategy.root_device.type for configs in groups}
    if devices <= {"cpu"} and all(config.num_threads == 1 for config in chain(*groups)):
        return n_jobs or num_cores()
    if n_jobs not in (None, 1):
        raise ConfigError(must_be("hydra.launcher.n_jobs", "1 or null but on a CPU with num_threads=1", n_jobs))
    return 1


def planned(configs: Mapping[int, DictConfig]) -> Plan:
    """The plan for these jobs; what is wrong with one of them it is left to say itself."""
    plan, streams, seen = Plan(), dict[str, TaskStream](), set()
    for number, config in configs.items():
        with suppress(ConfigError, RunFolderError, OmegaConfBaseException):
            request = requested(config)
            folder, config = request.folder, request.config
            if folder.path in seen or (folder.finished and not config.rerun):
                continue
            seen.add(folder.path)
            where = (0, 0) if folder.finished else place(config, folder)
            if reason := reason_alone(config):
                plan.alone.setdefault(reason, []).append(number)
                continue
            stream = _stream(config, streams)
            key = f"{stack_key(config, where)} {_sizes(stream)}"
            if key not in plan.groups:  # the first of them stands for all when sizes are chosen
                build_run(config, stream).make_trainer()
            plan.groups.setdefault(key, {})[number] = Job(request, stream, where)
    return plan


def _stream(config: DictConfig, streams: dict[str, TaskStream]) -> TaskStream:
    """The configuration's stream, made once for all jobs that share it."""
    key = OmegaConf.to_yaml(config.dataset, resolve=True)
    if key not in streams:
        streams[key] = make_stream(config)
    return streams[key]


def _sizes(stream: TaskStream) -> list[tuple[int, ...]]:
    """Examples of each task for training, validation and test: the members of a stack have as many."""
    tasks = map(stream.task, range(stream.num_tasks))
    return [(len(task.train), len(task.val), len(task.test)) for task in tasks]


def default_size(job: Job, n_jobs: int = 1) -> int:
    """How many members a stack of jobs like this one has, with n_jobs at a time: more make no step faster, or do not
    fit."""
    run = build_run(job.request.config, job.stream)
    member = sum(p.numel() * p.element_size() for p in run.learner.backbone.parameters())
    output = 4 * run.batch_size * largest_output(run.learner.backbone)
    device = run.make_trainer().strategy.root_device
    if device.type == "cuda":
        return max(1, torch.cuda.mem_get_info(device)[0] // (COPIES * (member + output)))
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    fitting = free // (n_jobs * COPIES * (member + output))
    return max(1, min(max(FEW, CACHED_BYTES // member), OUTPUT_BYTES // output, fitting))


@torch.no_grad()
def largest_output(backbone: Any) -> int:
    """How many numbers one sample's largest output of a layer has."""
    sizes: list[int] = []
    with register_module_forward_hook(lambda layer, given, output: sizes.append(output.numel())):
        backbone(torch.zeros(1, *backbone.input_shape))
    return max(sizes)


def spans(numbers: Sequence[int]) -> str:
    """Job numbers in words: jobs 0–3, 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ("jobs " if len(numbers) > 1 else "job ") + ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in found)


@new_garbage()
def train_stack(jobs: Mapping[int, Job], cores: int) -> dict[int, Outcome]:
    """Train these jobs together, write their run folders and show their results; returns what each has come to.

    cores: on which the pictures are drawn. A job that cannot start now, e.g. as another process trains it, is left out.

    Raises:
        Interrupted: by a signal, after a step that is saved.
    """
    members: dict[int, Member] = {}
    try:
        for number, job in jobs.items():
            if (member := opened(job)) is not None:
                members[number] = member
        _learn([*members.values()], cores)
    except BaseException as stop:
        for member in members.values():
            member.error = member.error or stop
        raise
    finally:
        for member in reversed(members.values()):
            member.close()
    return {number: _outcome(member) for number, member in members.items()}


def opened(job: Job) -> Member | None:
    """The run, with its folder held for this process; None if it cannot start."""
    config, folder = job.request.config, job.request.folder
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    with suppress(ConfigError, RunFolderError), ExitStack() as context:
        run = build_run(config, job.stream)
        context.enter_context(folder.locked())
        if folder.finished and config.rerun:
            folder.start_over()
        if place(config, folder) != job.where:  # another process has trained it meanwhile
            return None
        context.enter_context(folder.failures_told())
        tracker = context.enter_context(watched(run, replace(job.request, console=Console(quiet=True))))
        return Member(job.request, run, tracker, block_key(config), context.pop_all())
    return None


def _learn(members: Sequence[Member], cores: int) -> None:
    if not members:
        return
    console = members[0].request.console
    for num_learned in learn(members):
        names = members[0].run.stream.names
        going = sum(member.error is None for member in members)
        console.print(f"task {num_learned}/{len(names)} learned by {going} runs", highlight=False)
    _write_results([member for member in members if member.error is None], cores)


def _write_results(members: Sequence[Member], cores: int) -> None:
    """Fill the run folders. Of a small run the pictures are most of the work."""
    draw_too = any(isinstance(logger, Gallery) for member in members for logger in member.tracker.loggers)
    num = 1 if draw_too else min(cores, len(members))  # a lock of theirs would stay held in a fork, e.g. matplotlib's
    with in_workers(lambda i: [_drawn(member) for member in members[i::num]], num) as drawn:
        errors = [*drawn]
    for i, member in enumerate(members):
        with member.fails_alone():
            if error := errors[i % num][i // num]:
                raise error
            member.result = write_result(member.request.config, member.run, member.request.folder, drawn=True)
            member.tracker.summarise(member.result.metrics)
            show(member.result, member.request.console)


def _drawn(member: Member) -> Exception | None:
    """Draw the member's pictures; returns the error if there is one."""
    record, folder = member.run.record, member.request.folder
    matrix = torch.tensor(record.test, dtype=torch.float64)
    try:
        draw(folder, member.run.stream.names, matrix, record, title(member.request.config))
    except Exception as error:
        return error
    return None


def _outcome(member: Member) -> Outcome:
    """Raises the member's error if it is a defect of the program."""
    if member.result is not None:
        return Outcome(tuple(member.result.metrics[name] for name in member.request.config.objectives), trained=True)
    message = explain(member.error) if member.error else None
    if message is None and member.error is not None:
        raise member.error
    return Outcome(failed=message)
