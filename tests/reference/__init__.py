"""Slow and obvious: float64, loops over single samples, autograd of the formula as written. Shares no code with src."""

from reference.evaluation import *  # noqa: F403
from reference.importance import *  # noqa: F403
from reference.penalties import *  # noqa: F403
from reference.remedies import *  # noqa: F403
