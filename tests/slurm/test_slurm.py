"""Sweeps on a real SLURM: whatever it does to a job, the run ends with the numbers of one that nobody disturbed."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import throttle
from one_machine import OneMachineSlurm, wait_for

import wandb_log
from lifelong.experiment.run import Result, read_result
from lifelong.runs.folder import RunFolder
from lifelong.tracking import read_history
from runs import TINY, Said, assert_same_run, run

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
"""Seconds for anything: a Python with torch and Lightning starts in 5 s, on a busy machine in a minute."""
LONGER = "trainer.max_epochs=10"
"""60 steps, 52 rows of history."""
METHODS = ("ewc", "si", "rwalk", "mas")


@dataclass
class Sweep:
    """`python train.py -m hydra/launcher=slurm_cpu` over methods, on its way."""

    slurm: OneMachineSlurm
    root: Path
    methods: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    held_in: int = 1
    """Index of the task after whose first epoch the jobs wait for a signal."""
    process: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self) -> None:
        arguments = ["-m", "hydra/launcher=slurm_cpu", *TINY, LONGER, f"method={','.join(self.methods)}"]
        throttled = ["trusted=[throttle]", "+logger.slow._target_=throttle.throttled"]
        self.root.mkdir(exist_ok=True)
        self.process = self.slurm.popen(
            [sys.executable, str(ROOT / "train.py"), *arguments, *throttled, *self.overrides, f"root={self.root}"],
            cwd=self.root,
            PYTHONPATH=f"{ROOT / 'src'}:{Path(__file__).parent}",
            WANDB_MODE="offline",
            **{throttle.TASK: str(self.held_in), throttle.PATIENCE: str(PATIENCE)},
        )

    def end(self) -> Said:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Said(self.process.returncode, out, err)

    def folder(self, method: str) -> Path:
        """The run folder, which need not be there yet."""
        return next(self.root.glob(f"default/{method}-*/"), self.root / "none")

    def result(self, method: str) -> Result:
        return read_result(RunFolder(self.folder(method)))

    def job(self, method: str) -> str:
        """SLURM's id: ID of a single job, ID_K of the K-th of several."""
        suffix = f"_{self.methods.index(method)}" if len(self.methods) > 1 else ""
        (path,) = self.root.glob(f"default/.submitit/*{suffix}/*_submitted.pkl")
        return path.parent.name

    def facts(self, method: str) -> dict[str, str]:
        """What SLURM knows of the job: JobState, Restarts, NodeList ..."""
        words = self.slurm.ask("scontrol", "show", "job", "-o", self.job(method)).split()
        return dict(word.partition("=")[::2] for word in words)  # type: ignore[misc]

    def log(self, method: str) -> str:
        return "".join(path.read_text() for path in self.root.glob(f"default/.submitit/{self.job(method)}/*.out"))

    def wait_until_held(self, method: str) -> None:
        def there() -> bool:
            assert self.process.poll() is None, self.end()
            path = self.folder(method) / "history.jsonl"
            return path.exists() and any(r["task"] == self.held_in and r.get("epoch") == 1 for r in read_history(path))

        wait_for(there, PATIENCE, lambda: f"{method}: {self.facts(method)}\n{self.log(method)}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    root = tmp_path_factory.mktemp("undisturbed")
    return {method: run(root, LONGER, f"method={method}") for method in METHODS}


@pytest.fixture(scope="module")
def limited(slurm: OneMachineSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A run that takes longer than its time limit, in the background of the other tests: SLURM counts in minutes."""
    overrides = ("hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=20")
    sweep = Sweep(slurm, tmp_path_factory.mktemp("limited"), ("ewc",), overrides, held_in=0)
    yield sweep
    sweep.process.kill()


def limit(sweep: Sweep, method: str, more_seconds: int) -> None:
    """Lower or raise a job's limit: by SLURM's rules it has so many seconds left, or up to a minute more."""
    hours, minutes, seconds = map(int, sweep.facts(method)["RunTime"].split(":"))
    in_minutes = 60 * hours + minutes + -(-(seconds + more_seconds) // 60)
    sweep.slurm.ask("scontrol", "update", f"JobId={sweep.job(method)}", f"TimeLimit={in_minutes}")


@pytest.fixture(scope="module")
def disturbed(slurm: OneMachineSlurm, limited: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Four jobs: one told to queue again, one warned of its limit, one gives way to a more urgent, one is cancelled."""
    sweep = Sweep(slurm, tmp_path_factory.mktemp("disturbed"), METHODS, ("logger=wandb",))
    try:
        limited.wait_until_held("ewc")
        limit(limited, "ewc", more_seconds=30)
        sweep.wait_until_held("ewc")
        slurm.ask("scontrol", "requeue", sweep.job("ewc"))
        sweep.wait_until_held("si")
        slurm.ask("scancel", "--signal=USR2", sweep.job("si"))
        sweep.wait_until_held("rwalk")
        node = sweep.facts("rwalk")["NodeList"]
        slurm.ask("sbatch", "--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--wrap=true")
        sweep.wait_until_held("mas")
        slurm.ask("scancel", sweep.job("mas"))
        yield sweep
    finally:
        sweep.process.kill()


@pytest.fixture(scope="module")
def said(disturbed: Sweep) -> Said:
    return disturbed.end()


def test_cancelled_job_is_said_in_one_line_after_the_others_were_heard(disturbed: Sweep, said: Said) -> None:
    assert said.code == 1
    assert said.err.count("\n") == 1, said.err
    job = disturbed.job("mas")
    assert said.err.startswith("error: dataset/source=digits ")
    assert said.err.endswith(
        f"job {job} ended without a result (CANCELLED), its log is in {disturbed.root}/default/.submitit/{job}; "
        "the same command goes on\n"
    )


@pytest.mark.parametrize(("method", "name"), [("ewc", "SIGTERM"), ("si", "SIGUSR2"), ("rwalk", "SIGTERM")])
def test_disturbed_job_was_queued_again_and_equals_an_undisturbed_run(
    disturbed: Sweep, said: Said, undisturbed: dict[str, Result], method: str, name: str
) -> None:
    assert disturbed.facts(method)["Restarts"] == "1"
    assert f"interrupted by {name}; the same command continues" in disturbed.log(method)
    assert_same_run(disturbed.result(method), undisturbed[method])


@pytest.mark.parametrize("method", ["ewc", "si", "rwalk"])
def test_wandb_run_of_a_disturbed_job_goes_on_with_no_step_doubled_or_missing(
    disturbed: Sweep, said: Said, method: str
) -> None:
    (path,) = disturbed.folder(method).glob("wandb/offline-run-*/*.wandb")
    assert wandb_log.run_record(path)["run_id"] == disturbed.folder(method).name
    assert [row["step"] for row in wandb_log.rows(path)] == [
        row["step"] for row in read_history(disturbed.folder(method) / "history.jsonl")
    ]


def test_cancelled_job_was_saved_and_the_same_run_goes_on_anywhere(
    disturbed: Sweep, said: Said, undisturbed: dict[str, Result]
) -> None:
    assert not RunFolder(disturbed.folder("mas")).finished
    assert_same_run(run(disturbed.root, LONGER, "method=mas"), undisturbed["mas"])


def test_job_at_its_time_limit_is_saved_queued_again_and_equals_an_undisturbed_run(
    limited: Sweep, undisturbed: dict[str, Result]
) -> None:
    wait_for(lambda: limited.facts("ewc")["Restarts"] >= "1", PATIENCE, lambda: limited.log("ewc"))
    limit(limited, "ewc", more_seconds=3600)  # on a busy machine the start alone takes longer than the low one
    said = limited.end()
    assert (said.code, said.err) == (0, ""), said
    assert "interrupted by SIGUSR2; the same command continues" in limited.log("ewc")
    assert "this job is timed-out" in limited.log("ewc")
    assert_same_run(limited.result("ewc"), undisturbed["ewc"])
