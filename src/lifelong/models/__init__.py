"""The learner (a backbone and the columns it may choose from), its evaluation, and the backbones, one a file."""
