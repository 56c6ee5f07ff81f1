"""A SLURM of its own on one machine: munged, slurmctld and one slurmd a node, on 127.0.0.1, below one folder.

No systemd, nothing below /etc, no accounting (bin/sacct stands in). Needs root, as slurmd does to start jobs.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
NODES = ("one", "two", "three", "four", "five")
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a job that is queued again waits until its old credential has expired: two minutes by default, 5 s at least
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SlurmdParameters=config_overrides
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes={nodes} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=16000\n"


def missing() -> str | None:
    """Why SLURM cannot be started here; None if nothing is known against it."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if absent:
        return f"needs SLURM (Debian: slurmctld slurmd slurm-client munge), not found: {', '.join(absent)}"
    return None if os.geteuid() == 0 else "needs root to start slurmd"


def search_path() -> str:
    """PATH with our sacct before all and the daemons' place at the end."""
    return os.pathsep.join([str(Path(__file__).parent / "bin"), os.environ.get("PATH", ""), "/usr/sbin"])


def wait_for(condition: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what()}")
        time.sleep(0.05)


class OneMachineSlurm:
    """The daemons, from `start` to `stop`; `folder` holds their files (a socket's path: at most 107 characters)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": search_path(), "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._write_configuration()
        socket_path = self.folder / "munge.socket"
        options = {"socket": socket_path, "key-file": self.folder / "munge.key", "pid-file": self.folder / "munge.pid",
                   "log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}  # fmt: skip
        # --force: pytest's folder lies below one that others may write to
        self._launch("munged", "--foreground", "--force", *(f"--{key}={value}" for key, value in options.items()))
        wait_for(socket_path.exists, 20, self._log)
        self._launch("slurmctld", "-D", "-i")
        for name in NODES:
            self._launch("slurmd", "-D", "-N", name)
        wait_for(
            lambda: self.ask("sinfo", "-h", "-N", "-p", "main", "-t", "idle").count("\n") == len(NODES), 30, self._log
        )

    def stop(self) -> None:
        """Ends all jobs, then the daemons, the last started first."""
        if self._daemons:
            self.ask("scancel", "--full", "--signal=KILL", "--state=RUNNING", f"--user={os.getuid()}")
            self.ask("scancel", f"--user={os.getuid()}")
            end = time.monotonic() + 10
            while self.ask("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def ask(self, *command: str) -> str:
        """What a command of SLURM's says on stdout."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30).stdout

    def popen(self, command: Sequence[str], cwd: Path, **environment: str) -> "subprocess.Popen[str]":
        """A command that sees this SLURM."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=cwd, env={**self.environment, **environment}, text=True, **options)

    def _write_configuration(self) -> None:
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        host, ports = socket.gethostname().partition(".")[0], free_ports(1 + len(NODES))
        nodes = (NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:], strict=True))
        plain = CONF.format(host=host, port=ports[0], folder=self.folder, nodes=",".join(NODES))
        head, _, partitions = plain.partition("PartitionName")
        (self.folder / "slurm.conf").write_text(f"{head}{''.join(nodes)}PartitionName{partitions}")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _launch(self, *command: str) -> None:
        program = str(shutil.which(command[0], path=self.environment["PATH"]))
        options = {"env": self.environment, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with open(self.folder / "daemons.log", "ab") as log:
            self._daemons.append(subprocess.Popen([program, *command[1:]], stdout=log, **options))

    def _log(self) -> str:
        return "\n".join((self.folder / "daemons.log").read_text().splitlines()[-20:])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
