"""What a run says while it works: history.jsonl (always), and Lightning loggers beside it (loggers/, one a file)."""

from lifelong.tracking.about import About
from lifelong.tracking.history import History, NoHistory, read_history
from lifelong.tracking.tracker import DivergedError, Tracker, quiet_libraries
from lifelong.tracking.within import WITHIN, Subsets, evaluations, part_tested

__all__ = ["WITHIN", "About", "DivergedError", "History", "NoHistory", "Subsets", "Tracker", "evaluations",
           "part_tested", "quiet_libraries", "read_history"]  # fmt: skip
