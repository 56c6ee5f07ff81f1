"""Start the ranks of a run on this machine, watch them, and end them all when one fails.

Lightning's own launcher starts its processes within the first fit by issuing the command again. Here each job of a
multirun and each `lifelong.run` has ranks of its own, with the very configuration of that job; this process is none of
them, so that it outlives them and can say in one line what became of them.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from torch import distributed as dist

from lifelong.distributed.ranks import RankError
from lifelong.runs.interrupted import Interrupted

GRACE_SECONDS = 10.0
"""How long the others have to end by themselves after a rank has failed: most lose contact and do so at once."""
SAVING_SECONDS = 300.0
"""The same after a signal, which lets them save and finish what they log."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
HOST = "127.0.0.1"
RANK = "lifelong.experiment.rank"
"""The module a rank runs."""

Rank = subprocess.Popen[bytes]


def launch(config_yaml: str, num_ranks: int) -> None:
    """Run a resolved configuration by `num_ranks` processes; returns when all have done their part.

    Raises:
        RankError: one of them failed; says why.
        Interrupted: a signal came to this process, or to one of them.
    """
    with tempfile.TemporaryDirectory(prefix="lifelong-") as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(config_yaml, encoding="utf-8")
        store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # the system picks a free port
        ranks: list[Rank] = []
        with _forwarding(ranks) as received:
            try:
                ranks += [_start(folder, rank, num_ranks, store.port) for rank in range(num_ranks)]
                _wait(ranks, received)
            finally:
                codes = _end(ranks)
        _judge(codes, [_report(folder, rank) for rank in range(num_ranks)], received)


def _start(folder: Path, rank: int, num_ranks: int, port: int) -> Rank:
    environment = {
        **os.environ,
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # no rank opens the store: this process has
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", RANK, str(folder)]
    # A session of its own: Ctrl-C comes to this process alone, which hands it on once. Standard input stays open as
    # long as this process lives: so a rank sees that it does.
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


@contextmanager
def _forwarding(ranks: list[Rank]) -> Iterator[list[int]]:
    """Within the block SIGINT, SIGTERM and SIGUSR2 go to all ranks; gives the list of those that came."""
    received: list[int] = []

    def forward(signum: int, frame: Any) -> None:
        received.append(signum)
        for rank in ranks:
            rank.send_signal(signum)

    here = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    before = {s: signal.signal(s, forward) for s in SIGNALS if here}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _wait(ranks: list[Rank], received: list[int]) -> None:
    """Until all have ended, or one has failed and the others have had their time."""
    deadline = float("inf")
    while any(rank.poll() is None for rank in ranks) and monotonic() < deadline:
        if deadline == float("inf") and any(rank.poll() for rank in ranks):
            deadline = monotonic() + (SAVING_SECONDS if received else GRACE_SECONDS)
        sleep(0.02)


def _end(ranks: list[Rank]) -> list[int | None]:
    """Kill those that still run; the exit codes of those that had ended by themselves."""
    codes = [rank.poll() for rank in ranks]
    for rank in ranks:
        rank.kill()
        rank.wait()
        rank.stdin.close()  # type: ignore[union-attr]
    return codes


def _report(folder: Path, rank: int) -> dict[str, Any]:
    """What a rank that failed left behind; {} if it was killed, or has not failed."""
    path = folder / f"{rank}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _judge(codes: list[int | None], reports: list[dict[str, Any]], received: list[int]) -> None:
    """Raise what the first cause deserves: a signal, an error, a death; a rank that lost another is a consequence."""
    if not any(codes):
        return
    for report in reports:
        if "signum" in report:
            raise Interrupted(report["signum"], report["then"])
    if received:
        raise Interrupted(received[0])
    for report in reports:
        if "error" in report and not report["lost"]:
            raise RankError(report["error"])
    for rank, (code, report) in enumerate(zip(codes, reports, strict=True)):
        if code and not report:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise RankError(f"rank {rank} of {len(codes)} {how}; the same command continues from the last checkpoint")
    raise RankError(next(report["error"] for report in reports if report))
