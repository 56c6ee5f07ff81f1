"""Learn a stream of tasks: python train.py method=ewc. See python train.py --help."""

import hydra
from omegaconf import DictConfig

from lifelong.config import register
from lifelong.explain import one_line_errors, one_line_job
from lifelong.groups import CONFIGS


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")  # type: ignore[untyped-decorator]
def main(config: DictConfig) -> float:
    with one_line_job():
        from lifelong.experiment import run_experiment  # loads torch and lightning: --help does not wait for them

        return run_experiment(config).metrics["val_average_accuracy"]
    return float("nan")  # a job of a multirun that failed


if __name__ == "__main__":
    register()
    with one_line_errors():
        main()
