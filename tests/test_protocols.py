"""The published protocols: what each experiment= composes to, and that each runs."""

from pathlib import Path

import pytest
import yaml

from lifelong.config.checks import check
from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import composed
from lifelong.experiment.run import run_experiment

PROTOCOLS = (
    "homework",
    "agem_permuted",
    "vandeven_split",
    "vandeven_permuted",
    "hsu_split",
    "zenke_permuted",
    "kolouri_permuted",
    "avalanche_permuted",
)
SMALL = ("dataset/source=digits", "dataset.source.test_fraction=0.8", "backbone.widths=[8]", "logger=none")
SMALL += ("trainer=cpu", "progress=false", "log_every_n_steps=2", "num_threads=1")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_composes_with_every_method_that_it_sweeps(name: str) -> None:
    methods = yaml.safe_load((CONFIGS / "experiment" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    for method in methods["method"].split(","):
        config = composed([f"experiment={name}", f"method={method}"])
        check(config)
        assert config.method.get("strength", 0) >= 0
        assert config.name == name


def test_protocols_are_what_the_papers_say() -> None:
    agem = composed(["experiment=agem_permuted", "method=rwalk"])
    assert (agem.batch_size, agem.optimizer.lr, agem.method.strength) == (10, 0.1, 1)
    assert composed(["experiment=agem_permuted", "method=finetune"]).optimizer.lr == 0.03
    assert agem.optimizer._target_ == "torch.optim.SGD"
    assert list(agem.dataset.window) == [3, agem.dataset.num_tasks]
    split = composed(["experiment=vandeven_split", "method=ewc", "scenario=domain"])
    assert (split.trainer.max_steps, split.method.strength) == (2000, 1e10)
    zenke = composed(["experiment=zenke_permuted", "method=si"])
    assert (zenke.keep_optimizer, zenke.method.strength, zenke.method.damping) == (True, 0.1, 0.1)
    assert zenke.dataset.first_identity
    for name in ("vandeven_split", "vandeven_permuted", "hsu_split"):  # their code resets Adam only when told to
        assert composed([f"experiment={name}", "method=ewc"]).keep_optimizer
    assert not composed(["experiment=kolouri_permuted"]).backbone.bias


def test_method_without_a_published_strength_must_be_given_one() -> None:
    with pytest.raises(ConfigError, match="or be given a strength, got 'scp'"):
        composed(["experiment=vandeven_split", "method=scp"])
    check(composed(["experiment=vandeven_split", "method=scp", "method.strength=10"]))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_runs_on_a_small_set(name: str, tmp_path: Path) -> None:
    short = ["trainer.max_steps=2"] + (["dataset.num_tasks=5"] if name.endswith("permuted") else [])
    short += ["dataset.window=[3,5]"] if name == "agem_permuted" else []
    config = composed([f"experiment={name}", "method=finetune", *SMALL, *short, f"root={tmp_path}"])
    result = run_experiment(config)
    assert result.metrics["num_tasks"] == (2 if name == "agem_permuted" else 5)
