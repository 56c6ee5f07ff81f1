"""In place of lifelong.experiment.rank: does at once what a rank may come to; config.yaml says what."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from lifelong.launch.jobs import ended_with


def main(folder: str) -> None:
    rank = int(os.environ["RANK"])
    act = json.loads(Path(folder, "config.yaml").read_text())[rank]
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        time.sleep(60)
    if act == "wait for a signal":
        signal.signal(signal.SIGTERM, lambda *_: None)
        with ended_with(os.getppid()):
            Path(os.environ["READY"], str(rank)).touch()
            signal.pause()
            Path(os.environ["READY"], f"{rank} signalled").touch()
        act = {"message": "", "signum": signal.SIGTERM, "then": "the same command continues: here"}
    if isinstance(act, dict):
        time.sleep(act.pop("after", 0))
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps({**act, "timestamp": time.time()}))
        sys.exit(1)
