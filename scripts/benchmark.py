"""Speed against a floor written here in plain PyTorch: one process, alternating repetitions, medians, ratios.

    python scripts/benchmark.py --sections importance methods --save docs

A section is a file of scripts/benchmarks/ with a function `measure` that returns a table.
"""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells stderr of every start
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import argparse
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks import device, growth, importance, methods, stacked, stream
from benchmarks.table import Settings, Table
from lifelong.data.sources.idx import idx
from lifelong.runs.environment import commit
from studies.pages import renew

SECTIONS: dict[str, Callable[[Settings], Table]] = {
    "importance": importance.measure,
    "methods": methods.measure,
    "stream": stream.measure,
    "growth": growth.measure,
    "stacked": stacked.measure,
    "device": device.measure,
}
ON_REQUEST = {"device", "stacked"}
"""Every method on every workload, a ResNet among them; whole sweeps by three launchers: hours on a CPU."""


def machine() -> str:
    """The command and what it runs on, in a line."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text() if info.exists() else "")
    cpu = found[1] if found else platform.processor() or platform.machine()
    software = f"python {platform.python_version()}, torch {torch.__version__}, commit {commit()}"
    load = f"threads {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f}"
    return f"`{shlex.join(['python', *sys.argv])}`, on cpu {cpu}, {load}, {software}, date {date.today()}."


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Ends the command in a line on stderr if an option is outside what is allowed."""
    own = parser.parse_args(arguments)
    for key in ("repetitions", "threads"):
        if (number := getattr(own, key)) is not None and number < 1:
            parser.error(f"--{key} must be an integer >= 1, got {number}")
    if own.device == "cuda" and set(own.sections) != {"device"}:
        parser.error("--device cuda is for --sections device alone")
    if own.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, none found")
    if own.save and not (own.save / "performance.md").is_file():
        parser.error(f"--save must be a folder with performance.md, got {str(own.save)!r}")
    try:
        if own.fashion_mnist:
            idx(str(own.fashion_mnist))
    except ValueError as error:
        parser.error(str(error).replace("dataset.source.path", "--fashion-mnist"))
    return own


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=[s for s in SECTIONS if s not in ON_REQUEST])
    parser.add_argument("--repetitions", type=int, help="default: what each section takes")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples: to see that it runs")
    parser.add_argument("--threads", type=int, default=1, help="more pay only on a machine with nothing else to do")
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER", help="of the four IDX files; else synthetic")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of section device; others: cpu")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="renew the tables of its performance.md")
    own = parsed(parser, arguments)
    torch.set_num_threads(own.threads)
    ran_on = machine()
    print(ran_on)
    shrink = 10 if own.quick else 1
    settings = Settings(own.repetitions, shrink, own.fashion_mnist, own.device)
    for section in own.sections:
        table = SECTIONS[section](settings)
        print(f"\n== {section} ==\n{table.markdown()}", flush=True)
        if own.save:
            renew(own.save / "performance.md", {section: f"{table.markdown()}\n\n{ran_on}"})


if __name__ == "__main__":
    main()
