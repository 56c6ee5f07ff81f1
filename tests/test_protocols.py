"""The published protocols: what each experiment= composes to, as published and done right, and that each runs."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from grids import grid
from lifelong.config.checks import check
from lifelong.config.groups import CONFIGS
from lifelong.config.schema import COMPATS, ConfigError, compose
from lifelong.experiment.errors import composed
from lifelong.experiment.run import run_experiment
from lifelong.runs.identity import identifier
from runs import command
from studies.protocols import default_strength, protocol, read_protocols

ENTRIES = read_protocols()["protocols"]
PAPERS = [name for name, entry in ENTRIES.items() if "source" in entry]
EXPERIMENTS = sorted({entry["overrides"][0].removeprefix("experiment=") for entry in map(ENTRIES.get, PAPERS)})
SMALL = ("dataset/source=digits", "dataset.source.test_fraction=0.8", "backbone.widths=[8]", "logger=none")
SMALL += ("trainer=cpu", "progress=false", "log_every_n_steps=2", "num_threads=1")


@pytest.mark.parametrize("name", grid(EXPERIMENTS, EXPERIMENTS[::5]))
def test_protocol_composes_with_every_method_that_it_sweeps(name: str) -> None:
    methods = OmegaConf.select(compose([f"experiment={name}"], with_hydra=True), "hydra.sweeper.params.method")
    for method in methods.split(","):
        config = composed([f"experiment={name}", f"method={method}"])
        check(config)
        assert config.method.get("strength", 0) >= 0
        assert config.name == name


@pytest.mark.system
@pytest.mark.parametrize("name", PAPERS)
def test_every_row_composes_in_both_columns(name: str) -> None:
    plan = protocol(name, "digits")
    assert set(plan.given) <= set(plan.rows_of("published"))
    for compat in COMPATS:
        for row in plan.rows_of("published") if compat == "published" else plan.rows:
            check(composed(plan.of_row(row, compat)))


def test_protocols_are_what_the_papers_say() -> None:
    agem = composed(["experiment=agem_permuted", "method=rwalk"])
    assert (agem.batch_size, agem.optimizer.lr, agem.method.strength) == (10, 0.1, 1)
    assert (agem.backbone.init, agem.method.half) == ("truncated_normal", False)
    assert composed(["experiment=agem_permuted", "method=finetune"]).optimizer.lr == 0.03
    assert agem.optimizer._target_ == "torch.optim.SGD"
    assert list(agem.dataset.window) == [3, agem.dataset.num_tasks]
    split = composed(["experiment=vandeven2022_split", "method=ewc", "scenario=domain"])
    assert (split.trainer.max_steps, split.method.strength, split.method.labels) == (2000, 1e10, "exact")
    assert (split.active_classes, split.drop_last, split.dataset.class_order) == ("seen", True, "shuffle")
    earlier = composed(["experiment=vandeven2019_split", "method=online_ewc", "scenario=domain"])
    assert (earlier.method.strength, earlier.method.gamma, earlier.method.labels) == (1e8, 0.7, "pred")
    zenke = composed(["experiment=zenke_permuted", "method=si"])
    assert (zenke.keep_optimizer, zenke.method.strength, zenke.method.damping) == (True, 0.1, 0.1)
    assert zenke.dataset.first_identity
    for name in (
        "vandeven2019_split",
        "vandeven2019_permuted",
        "hsu_split",
    ):  # their code resets Adam only when told to
        assert composed([f"experiment={name}", "method=ewc"]).keep_optimizer
    assert not composed(["experiment=corel2m_permuted"]).backbone.bias


def test_done_right_is_the_source_s_protocol_with_our_methods() -> None:
    """compat= changes the method alone, and at our options all of them."""
    published, right = (
        composed(["experiment=hsu_split", "method=mas", "scenario=domain", f"compat={compat}"]) for compat in COMPATS
    )
    assert published.method.strength == 1e4
    assert right.method == composed(["method=mas"]).method
    assert {**published, "method": None, "compat": None} == {**right, "method": None, "compat": None}


def test_setting_of_the_command_line_stands_above_the_source_s() -> None:
    config = composed(["experiment=hsu_split", "method=ewc", "method.strength=7", "method.num_samples=9"])
    assert (config.method.strength, config.method.num_samples, config.method.labels) == (7, 9, "pred")


def test_method_that_the_source_lacks_has_its_own_options() -> None:
    for compat in COMPATS:
        config = composed(["experiment=hsu_split", "method=scp", f"compat={compat}"])
        assert config.method == composed(["method=scp"]).method


def test_column_decides_the_run_by_its_options_alone() -> None:
    """What both columns have in common is one run."""
    ours = [composed(["experiment=hsu_split", "method=finetune", f"compat={compat}"]) for compat in COMPATS]
    assert identifier(ours[0]) == identifier(ours[1])
    ours = [composed(["experiment=hsu_split", "method=ewc", f"compat={compat}"]) for compat in COMPATS]
    assert identifier(ours[0]) != identifier(ours[1])


def test_shown_configuration_is_plain(capfd: pytest.CaptureFixture[str]) -> None:
    said = command("experiment=corel2m_permuted", "method=online_ewc", "compat=published", "--cfg", "job")
    shown = yaml.safe_load(said.out)
    assert (shown["method"]["strength"], shown["keep_optimizer"], shown["as_published"]) == (75, "epoch", {})
    assert "${" not in said.out


def test_other_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^compat must be one of published, right, got 'wrong'"):
        check(composed(["compat=wrong"]))


def test_tables_of_the_sources_name_methods_and_their_options() -> None:
    for path in sorted((CONFIGS / "experiment").glob("*.yaml")):
        for method, options in (yaml.safe_load(path.read_text()).get("as_published") or {}).items():
            known = yaml.safe_load((CONFIGS / "method" / f"{method}.yaml").read_text())
            assert options.keys() <= known.keys(), f"{path.name}: {method}"


def test_published_number_that_was_only_recalled_is_not_shown() -> None:
    plan = protocol("vandeven2019_split_class", "mnist")
    assert set(plan.published) == {"finetune", "ewc", "lwf", "icarl", "joint"}
    assert {"online_ewc", "si"} <= set(plan.given)
    assert not protocol("hsu_split_class", "digits").published  # other data than the source's
    ewc = protocol("hsu_split_class", "mnist").published["ewc"]
    assert (ewc.value, ewc.sem) == (19.80, pytest.approx(0.05 / 9**0.5))


def test_row_with_a_strength_of_its_own_is_not_tuned() -> None:
    plan = protocol("zenke_permuted", "mnist")
    assert "si_01" in plan.rows_of("published")
    assert "si_01" not in plan.rows_of("right")
    assert default_strength(plan.method("si_01")) is not None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_protocol_runs_on_a_small_set(name: str, tmp_path: Path) -> None:
    tasks = {"agem_permuted": ["dataset.num_tasks=5", "dataset.window=[3,5]"], "der_rotated": ["dataset.num_tasks=5"]}
    short = ["dataset.num_tasks=5"] if name.endswith("permuted") or name.startswith("avalanche") else []
    short = ["trainer.max_steps=2", "batch_size=16", *tasks.get(name, short)]
    config = composed([f"experiment={name}", "method=finetune", *SMALL, *short, f"root={tmp_path}"])
    result = run_experiment(config)
    assert result.metrics["num_tasks"] == (2 if name == "agem_permuted" else 5)
