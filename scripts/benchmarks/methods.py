"""What each method costs beyond fine-tuning: per step, per task and in memory."""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from itertools import accumulate
from statistics import median

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.steps import BATCH_SIZE, Driver
from benchmarks.table import Cell, Settings, Table, in_turn, ratio, seconds
from lifelong.config.groups import choices

NUM_TASKS = 3
STEPS_BEFORE = 20
"""In each of them."""
NUM_STEPS = 80
"""A multiple of the intervals of EWC++, RWalk and K-FAC EWC, whose steps are not all alike."""


def measure(settings: Settings, widths: Sequence[int] = (400, 400), num_samples: int = 4000) -> Table:
    num_samples = max(num_samples // settings.shrink, 16)
    drivers = {method: Driver(method, widths, num_samples) for method in choices("method")}
    at_rest: dict[str, int] = {}
    for method, driver in drivers.items():
        driver.learn(NUM_TASKS, STEPS_BEFORE)
        at_rest[method] = driver.method.state_bytes()
        driver.start()
    repetitions = settings.repetitions or 10
    steps = {method: step_times(driver, drivers["finetune"], repetitions) for method, driver in drivers.items()}
    keeps = in_turn({m: partial(importance_seconds, d) for m, d in drivers.items()}, min(repetitions, 5))
    plain = transient_bytes(drivers["finetune"])
    rows: list[list[Cell]] = []
    for method, driver in sorted(drivers.items(), key=lambda item: item[0] != "finetune"):
        P = driver.parameter_bytes
        its, finetunes = steps[method]["its"], steps[method]["finetune's"]
        step: list[Cell] = [1e6 * median(its) / NUM_STEPS, ratio(its, finetunes), median(keeps[method])]
        exemplars = driver.method.memory.state_bytes()
        memory = (driver.method.state_bytes(), at_rest[method], exemplars, max(transient_bytes(driver) - plain, 0))
        rows.append([method, *step, *(held / P for held in memory)])
    shape = "-".join(map(str, (784, *widths, 10)))
    return Table(
        f"MLP {shape}, batches of {BATCH_SIZE}, fused Adam, float32, in the task after {NUM_TASKS} others. Step: "
        f"relative to finetune's, in turn, median (lowest–highest) of {repetitions} times {NUM_STEPS} "
        f"steps. Task: seconds to compute and fold in the importance of {num_samples:,} samples. Memory in multiples "
        "of P, the bytes of the parameters: what a checkpoint holds of the method amid a task and between tasks, its "
        "exemplars, and the peak of what it takes within a step and gives back, beyond finetune's.",
        {
            "method": "",
            "step, µs": ",.0f",
            "step, × finetune": ".2f",
            "task, s": ".3f",
            "state, P": ".1f",
            "between tasks, P": ".1f",
            "exemplars, P": ".2f",
            "within a step, P": ".1f",
        },
        rows,
        "joint's steps are finetune's, but task k has the training data of k tasks. derpp draws two batches a step; a "
        "reference gradient of agem and gem is of 256 exemplars, gem's of each task before; kfac_ewc pulls in every "
        "16th step.",
    )


def step_times(driver: Driver, plain: Driver, repetitions: int) -> dict[str, list[float]]:
    """Seconds of its steps and of finetune's, in turn: a neighbour on the machine is felt by both."""
    runs = {"its": partial(driver.steps, NUM_STEPS), "finetune's": partial(plain.steps, NUM_STEPS)}
    return in_turn({name: partial(seconds, run) for name, run in runs.items()}, repetitions)


def importance_seconds(driver: Driver) -> float:
    """Seconds of what follows a task; the method is then as it was."""
    before = deepcopy(driver.method.state_dict())
    elapsed = seconds(driver.keep)
    driver.method.load_state_dict(before)
    return elapsed


def transient_bytes(driver: Driver, num_steps: int = 10) -> int:
    """The most that is held within so many steps above what is held before them.

    As many steps go before: only of what was made under the profiler does it see the end.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        driver.steps(num_steps)
        with record_function("counted"):
            driver.steps(num_steps)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    begin = next(e.start_ns() for e in events if e.name() == "counted")
    return max(accumulate((e.nbytes() for e in events if e.name() == "[memory]" and e.start_ns() > begin), initial=0))
