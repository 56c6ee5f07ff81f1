"""Draw a grid of samples per task: python scripts/preview.py dataset=rotated dataset/source=digits out=preview.png.

Beside the options of train.py: out, the picture's file (preview.png); samples, images in a row (10).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lifelong.config import ConfigError, check
from lifelong.data.preview import preview_figure
from lifelong.experiment import make_stream
from lifelong.explain import composed, one_line_errors
from lifelong.figures import save_figure

OWN = {"out": "preview.png", "samples": "10"}


def main(arguments: Sequence[str]) -> Path:
    """Returns where the picture is. Raises ConfigError for a setting outside what is allowed."""
    own = dict(OWN)
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    if not own["samples"].isdecimal() or int(own["samples"]) < 1:
        raise ConfigError(f"samples must be an integer >= 1, got {own['samples']!r}")
    path = Path(own["out"])
    if path.suffix != ".png" or not path.parent.is_dir():
        raise ConfigError(f"out must be a .png file in a folder that exists, got {own['out']!r}")
    config = composed(overrides)
    check(config)
    stream = make_stream(config)
    stream.resident_bytes = 0  # only the images that are shown are made
    title = " ".join(o for o in overrides if o.startswith(("dataset=", "dataset/", "scenario="))) or "training images"
    save_figure(preview_figure(stream, int(own["samples"]), title=title), path)
    return path


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        with one_line_errors():
            print(main(sys.argv[1:]))
