"""No memory: nothing of earlier tasks is kept."""

from lifelong.memory.base import Memory


class NoMemory(Memory):
    """Training data are the task's own."""
