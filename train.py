"""Learn a stream of tasks: python train.py method=ewc. See python train.py --help."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError, register, with_choices
from lifelong.experiment.errors import one_line_errors, one_line_job
from lifelong.launch.jobs import Objectives, chosen_by_objectives


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")  # type: ignore[untyped-decorator]
def main(config: DictConfig) -> float | None:
    with one_line_job():
        with open_dict(config):
            with_choices(config, HydraConfig.get())
        from lifelong.experiment.run import run_experiment  # loads torch and lightning: --help does not wait for them

        if chosen_by_objectives() and not config.val_fraction:
            raise ConfigError(f"val_fraction must be > 0 where a sweep chooses by it, got {config.val_fraction}")
        result = run_experiment(config)
        return Objectives([result.metrics[name] for name in config.objectives], result.trained)
    return None  # a job of a multirun that failed


if __name__ == "__main__":
    register()
    with one_line_errors():
        main()
