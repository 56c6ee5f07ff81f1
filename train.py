"""Learn a stream of tasks: python train.py method=ewc. See python train.py --help."""

from lifelong.experiment.main import main

if __name__ == "__main__":
    main()
