"""Seeds of their own for everything random, so that no draw depends on an earlier one."""

import hashlib

import torch


def derive_seed(*numbers: int) -> int:
    """A seed in [0, 2⁶³) that is a function of these integers alone: the same in every process."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def derived_generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`; the global one is not touched."""
    return torch.Generator().manual_seed(derive_seed(*numbers))
