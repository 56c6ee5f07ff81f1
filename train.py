"""Learn a stream of tasks: python train.py method=ewc. See python train.py --help."""

import hydra
from omegaconf import DictConfig

from lifelong.config import CONFIGS, one_line_errors, register


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(config: DictConfig) -> float:
    with one_line_errors():
        from lifelong.experiment import run_experiment  # loads torch and lightning: --help does not wait for them

        return run_experiment(config).metrics["val_average_accuracy"]


if __name__ == "__main__":
    register()
    with one_line_errors():
        main()
