"""Draw a grid of samples per task: python scripts/preview.py dataset=rotated dataset/source=digits out=preview.png.

Beside the options of train.py: out, the picture's file (preview.png); samples, images in a row (10).
"""

from collections.abc import Sequence
from pathlib import Path

from lifelong.config.checks import check
from lifelong.config.schema import ConfigError
from lifelong.data.preview import preview_figure
from lifelong.experiment.errors import composed
from lifelong.experiment.parts import make_stream
from lifelong.plots.figures import save_figure
from own_options import own_options, run_script, whole_number

OWN = {"out": "preview.png", "samples": "10"}


def main(arguments: Sequence[str]) -> Path:
    """Returns where the picture is. Raises ConfigError for a setting outside what is allowed."""
    own, overrides = own_options(arguments, OWN)
    samples = whole_number(own, "samples", 1)
    path = Path(own["out"])
    if path.suffix != ".png" or not path.parent.is_dir():
        raise ConfigError(f"out must be a .png file in a folder that exists, got {own['out']!r}")
    config = composed(overrides)
    check(config)
    stream = make_stream(config)
    stream.resident_bytes = 0  # only the images that are shown are made
    title = " ".join(o for o in overrides if o.startswith(("dataset=", "dataset/", "scenario="))) or "training images"
    try:
        figure = preview_figure(stream, samples, title=title)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    save_figure(figure, path)
    return path


if __name__ == "__main__":
    run_script(main, __doc__)
