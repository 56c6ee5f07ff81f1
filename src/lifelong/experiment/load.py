"""A finished run's learner and method, read back from its folder."""

from collections.abc import Sequence
from pathlib import Path

from lifelong.config.build import build
from lifelong.config.checks import check_group
from lifelong.config.schema import ConfigError
from lifelong.data.examples import as_input as default_as_input
from lifelong.data.normalise import AsInput, Normalise
from lifelong.experiment.parts import make_learner
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder, whole


def load(folder: str | Path, trusted: Sequence[str] = (), as_input: AsInput | None = None) -> Learner:
    """The learner of a finished run, with its final weights, in eval mode on the CPU.

    `trusted`: prefixes a `_target_` in its config.yaml may have besides our own; what the file itself trusts counts
    for nothing. `as_input`: of the run's source, which must be given where a source has one of its own
    (`Source.as_input`): weights alone do not hold it.

    Raises:
        RunFolderError: the run is not finished, or its files are damaged.
        ConfigError: config.yaml has a `_target_` from elsewhere, or `as_input` is not given where it must be.
    """
    paths = RunFolder(Path(folder))
    config = paths.read_config()
    for group in ("backbone", "optimizer"):
        check_group(config, group, trusted)
    with whole(paths.model):
        saved = load_with_checksum(paths.model)
    learner = make_learner(config, saved["input_shape"], saved["num_classes"], saved["groups"])
    if as_input is None and saved.get("own_as_input"):
        raise ConfigError(f"as_input must be given to load {folder}, whose source has one of its own, got None")
    learner.as_input = as_input or default_as_input
    if saved.get("normalise"):
        mean, std = saved["normalise"]
        learner.as_input = Normalise(mean, std, learner.as_input)
    learner.load_state_dict(saved["state_dict"])
    learner.show(saved["visible"])
    return learner.eval()


def load_method(folder: str | Path, learner: Learner, trusted: Sequence[str] = ()) -> Method:
    """The method of a finished run, wired to what `load` returned: `enter(task)` makes that what it is on the task.

    It raises what `load` raises.
    """
    paths = RunFolder(Path(folder))
    config = paths.read_config()
    check_group(config, "method", trusted)
    with whole(paths.model):
        state = load_with_checksum(paths.model).get("method")
    method: Method = build(config.method, "method")
    method.learner = learner
    if state is not None:
        method.load_state_dict(state)
    return method
