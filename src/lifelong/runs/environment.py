"""What a run ran on."""

import hashlib
import platform
import resource
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import numpy
import torch
import torchmetrics


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and their hash (environment, 12 hex digits), commit, device and threads: flat, for metrics.json."""
    libraries = (f"{library.__name__} {library.__version__}" for library in (torch, lightning, torchmetrics, numpy))
    versions = ", ".join([f"python {platform.python_version()}", *libraries])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": versions,
        "environment": hashlib.sha256(versions.encode()).hexdigest()[:12],
        "commit": commit(),
        "device": f"{device.type}: {name}",
        "num_threads": torch.get_num_threads(),
    }


@cache
def commit() -> str:
    """Git commit of the code, + after it if the tree has changes or src a new file; "unknown" without a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in another repository
        changed = git("status", "--porcelain", "-uno") or git("ls-files", "--others", "--exclude-standard", "../..")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def count_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` of a GPU count from here, a run's start; a process on a CPU keeps its largest ever."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory taken so far: of the GPU's allocator, or the process's resident set on a CPU (Linux: KiB)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
