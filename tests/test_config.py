"""From the command line to objects: what fits what, what is refused, what decides a run."""

import pickle
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lifelong.config.build import build, factory
from lifelong.config.checks import BORDERS
from lifelong.config.groups import FREEZE, GROUPS, choices
from lifelong.config.options import complaint, parameters, type_error
from lifelong.config.schema import Config, ConfigError, Watching
from lifelong.experiment.errors import composed, explain
from lifelong.runs.identity import changed_code, code_hashes, identifier, identity, source_files
from lifelong.runs.interrupted import Interrupted
from runs import composed_once

# Plain data and annotations -----------------------------------------------------------------------------------------

FITTING: list[tuple[Any, list[Any], list[Any], str]] = [
    (int, [0, -3], [1.0, "1", True, None, [1]], "a valid integer"),
    (float, [0, 0.5, float("nan")], ["1", True, None], "a valid number"),
    (bool, [True, False], [0, 1, "yes", None], "a valid boolean"),
    (str, ["", "a"], [1, None, ["a"]], "a valid string"),
    (Path, ["/a"], [1, None], "a valid string"),
    (int | None, [1, None], [1.5, "x"], "a valid integer or null"),
    (Optional[Union[int, float]], [1, 1.5, None], ["x"], "a valid integer or a valid number or null"),  # noqa: UP007, UP045 - as libraries do
    (Sequence[int], [[], [1, 2]], [1, "ab", {"a": 1}], "a valid list"),
    (Sequence[int], [[], [1, 2]], [[1.5], [True]], "a valid integer at [0]"),
    (list[float] | None, [[1, 2.5], None], [3], "a valid list or null"),
    (tuple[float, float], [[0.9, 0.99]], [[0.9]], "valid (field required) at [1]"),
    (list, [[], ["a", 1]], ["a"], "a valid list"),
    (Literal["a", "b"], ["a"], ["c", 1, None], "'a' or 'b'"),
    (Literal[1] | Literal["x"] | None, [1, "x", None], [2, "y"], "1 or 'x' or null"),
    (dict[str, int], [{}, {"a": 1}], [[], "a"], "keys with values"),
    (Mapping[str, Any], [{"a": None}], [1], "keys with values"),
    (float | torch.Tensor, [1.0], ["a"], "a valid number"),
    (torch.Tensor, ["anything", 1, None], [], ""),
    (Callable[[int], int], ["anything"], [], ""),
    (Any, ["anything", None], [], ""),
]


@pytest.mark.parametrize(("annotation", "good", "bad", "words"), FITTING, ids=lambda value: str(value)[:30])
def test_plain_data_fit_what_the_words_say(annotation: Any, good: list[Any], bad: list[Any], words: str) -> None:
    assert [complaint(value, annotation) for value in good] == [None] * len(good)
    assert [complaint(value, annotation) for value in bad] == [words] * len(bad)


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none(), st.lists(st.integers())))
def test_plain_types_exclude_each_other(value: Any) -> None:
    """Every value fits exactly one of bool, number, text, null, list; integers are numbers too."""
    kinds = [bool, float, str, type(None), list]
    assert sum(complaint(value, kind) is None for kind in kinds) == 1
    assert complaint(value, int) is not None or complaint(value, float) is None


class Base:
    def __init__(self, strength: float, *, step: str = "gradient", none_is_fine: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        pass


class Middle(Base):
    pass


class Derived(Middle):
    def __init__(self, strength: float, *, interval: int = 1, **base: Any) -> None:
        super().__init__(strength, **base)


class Bare:
    pass


def function(size: int, names: Sequence[str] = ()) -> None:
    pass


def test_constructor_takes_what_its_bases_take() -> None:
    names, complete = parameters(Derived)
    assert list(names) == ["strength", "step", "none_is_fine", "interval"]
    assert complete
    assert names["interval"] == (int, 1)
    assert parameters(torch.optim.Adam)[0]["lr"][0] == Union[float, torch.Tensor]  # noqa: UP007 - as torch writes it


@pytest.mark.parametrize(
    ("options", "target", "line"),
    [
        ({"strength": 1, "step": "x", "interval": 2}, Derived, None),
        ({"none_is_fine": None}, Derived, None),
        ({"none_is_fine": "x"}, Derived, "key.none_is_fine must be a valid integer, got 'x'"),
        ({"interval": 1.5}, Derived, "key.interval must be a valid integer, got 1.5"),
        ({"step": True}, Derived, "key.step must be a valid string, got true"),
        (
            {"intervall": 2},
            Derived,
            "unknown key 'key.intervall' (did you mean interval?): key has interval, none_is_fine, step, strength",
        ),
        ({"names": "abc"}, function, "key.names must be a valid list, got 'abc'"),
        ({"x": 1}, function, "unknown key 'key.x': key has names, size"),
        ({"x": 1}, dict, None),  # C code without a signature: nothing is known, nothing refused
        ({"x": 1}, Bare, "unknown key 'key.x': key has no keys"),
        ({}, Middle, None),
    ],
)
def test_first_option_that_does_not_fit_is_named(options: dict[str, Any], target: Any, line: str | None) -> None:
    assert type_error(options, target, "key") == line


# Building -----------------------------------------------------------------------------------------------------------


def refusing(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("method.x must be 1, got 2"), "method.x must be 1, got 2"),
        (ValueError("seed must be 1, got 2"), "seed must be 1, got 2"),
        (ValueError("wrong\nin two lines"), "method: wrong; in two lines (given strength=2)"),
        (TypeError("f() missing 1 required positional argument: 'gamma'"), "method.gamma must be set, got nothing"),
        (RuntimeError("fused kernels need a GPU"), "method: fused kernels need a GPU (given strength=2)"),
        (ImportError("No module named 'x'"), "method: No module named 'x' (given strength=2)"),
        (EOFError(), "method: EOFError (given strength=2)"),
    ],
)
def test_refusal_of_a_constructor_is_one_line_with_its_key(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifelong.methods.l2.L2.__init__", lambda self, **_: refusing(error))
    node = OmegaConf.create({"_target_": "lifelong.methods.l2.L2", "strength": 2})
    with pytest.raises(ConfigError) as refused:
        build(node, "method")
    assert str(refused.value) == line
    monkeypatch.setattr("lifelong.methods.l2.L2.__init__", lambda self, **_: refusing(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        build(node, "method")


def test_factory_builds_anew_each_time_and_refuses_what_the_program_sets() -> None:
    make = factory(OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.5}), "optimizer")
    weights = [torch.nn.Parameter(torch.zeros(1))]
    assert make(weights) is not make(weights)
    with pytest.raises(ConfigError, match=r"optimizer\.lr must not be set: the program sets it, got 0\.5"):
        make(weights, lr=1.0)


# The root -----------------------------------------------------------------------------------------------------------


def test_every_group_and_border_is_a_key_of_the_configuration() -> None:
    config = composed_once(())
    names = {f.name for f in fields(Config)}
    assert {group.split(".")[0] for group in GROUPS} <= names
    for key in BORDERS:
        group, _, option = key.rpartition(".")
        chosen = [composed_once((f"{group.split('.')[0]}={c}",)) for c in choices(group)] if group else []
        nodes = [node for config in chosen if (node := OmegaConf.select(config, group)) is not None]
        targets = [_class(node._target_) for node in nodes]
        assert key in (*names, FREEZE) or any(option in parameters(target)[0] for target in targets)
    assert set(config) == names


def _class(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def test_identity_leaves_out_where_and_how_a_run_is_watched() -> None:
    plain = identity(composed_once(("seed=3",)))
    assert plain["seed"] == plain["dataset"]["seed"] == 3
    assert not plain.keys() & {"experiment", *(f.name for f in fields(Watching))}


# The code of a run --------------------------------------------------------------------------------------------------


def write_method(folder: Path, version: int) -> None:
    text = "from lifelong.methods.method import Method\n\n\nclass Own(Method):\n    version = {}\n"
    (folder / "own_method.py").write_text(text.format(version))


def test_changed_method_outside_the_package_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_method(tmp_path, version=1)
    monkeypatch.syspath_prepend(tmp_path)
    config = composed(("method=finetune", "method._target_=own_method.Own", "trusted=[own_method]"))
    before = code_hashes(config)
    assert changed_code(before, config) is None
    assert changed_code({"run_id": "of an older version"}, config) is None
    write_method(tmp_path, version=2)
    told = changed_code(before, config)
    assert told is not None
    assert told.startswith("the code of method own_method.Own has changed since")
    assert "rerun=true" in told
    assert "\n" not in told


def test_target_that_an_experiment_sets_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    optimizers = {"plain": "{}", "sgd": "{_target_: torch.optim.SGD}", "same": "{_target_: torch.optim.Adam}"}
    for name, text in optimizers.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\noptimizer: {text}\n")
    own = f"hydra.searchpath=[{tmp_path}]"
    plain, sgd, same = (composed([own, f"experiment={name}"]) for name in ("plain", "sgd", "same"))
    assert identifier(plain) == identifier(same) != identifier(sgd)
    assert (plain.choices.optimizer, sgd.choices.optimizer) == ("adam", "torch.optim.SGD")


def test_method_code_is_that_of_the_class_and_its_bases_and_code_is_all_of_ours() -> None:
    choices = (("method=ewc",), ("method=mas",), ("method=ewc", "seed=9"))
    ewc, mas, other = (code_hashes(composed_once(overrides)) for overrides in choices)
    assert ewc == other
    assert ewc["method_code"] != mas["method_code"]
    assert ewc["code"] == mas["code"]
    found = source_files("lifelong.methods.ewc.EWC")
    assert {"lifelong.methods.ewc", "lifelong.methods.penalty", "lifelong.methods.method"} <= found.keys()
    assert all(name.startswith("lifelong.") for name in found)
    assert source_files("torch.optim.Adam") == {}


# Words for errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("a\nb"), "a; b"),
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device"),
        (OSError("no number"), "no number"),
        (MemoryError(), "MemoryError"),
        (ZeroDivisionError("x"), None),
        (ValueError("x"), None),
    ],
)
def test_errors_a_user_can_mend_are_one_line_and_defects_are_not_explained(error: Exception, line: str | None) -> None:
    assert explain(error) == line


def test_interrupted_survives_the_way_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM, "and then")))
    assert (copy.signum, str(copy)) == (signal.SIGTERM, "interrupted by SIGTERM; and then")
    assert not isinstance(copy, Exception)  # Hydra would go on with the next job
