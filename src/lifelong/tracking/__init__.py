"""What a run says while it works: history.jsonl (always), and Lightning loggers beside it (loggers/, one a file)."""

from lifelong.tracking.about import About
from lifelong.tracking.history import History, NoHistory, read_history
from lifelong.tracking.tracker import DivergedError, Tracker, quiet_libraries

__all__ = ["About", "DivergedError", "History", "NoHistory", "Tracker", "quiet_libraries", "read_history"]
