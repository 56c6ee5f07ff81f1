"""In place of lifelong.experiment.rank: does at once what a rank may come to; config.yaml says what."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(folder: Path, rank: int) -> None:
    act = json.loads((folder / "config.yaml").read_text())[rank]
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        time.sleep(60)
    if act == "orphan":
        Path(os.environ["READY"]).touch()
        os.read(0, 1)
        Path(os.environ["ORPHANED"]).touch()
    if act == "wait for a signal":
        signal.signal(signal.SIGTERM, lambda *_: None)
        Path(os.environ["READY"]).joinpath(str(rank)).touch()
        signal.pause()
        act = {"signum": signal.SIGTERM, "then": "the same command continues: here"}
    if isinstance(act, dict):
        (folder / f"{rank}.json").write_text(json.dumps(act))
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["LOCAL_RANK"]))
