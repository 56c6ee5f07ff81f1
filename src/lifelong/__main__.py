"""python -m lifelong: the command."""

from lifelong.experiment.main import main

if __name__ == "__main__":
    main()
