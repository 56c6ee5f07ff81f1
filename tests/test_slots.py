"""Which GPU a job of a multirun takes."""

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from lifelong.experiment.parts import own_device

ONE = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": 1}})
TWO = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": 2}})
CPU = OmegaConf.create({"trainer": {"accelerator": "cpu", "devices": 1}})


def test_jobs_of_a_multirun_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert own_device(ONE) == {}  # outside of a multirun
    taken = []
    for number in range(7):
        job = {"mode": RunMode.MULTIRUN, "job": {"num": number}, "overrides": {"task": []}}
        monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": job}))
        taken.append(own_device(ONE)["devices"])
        assert own_device(TWO) == own_device(CPU) == {}
    assert taken == [[0], [1], [2], [0], [1], [2], [0]]
