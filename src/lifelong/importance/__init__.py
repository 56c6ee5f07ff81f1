"""How much each weight matters to what a model computes: means over samples of per-sample gradients.

All of it is one formula, evaluated exactly, and without a loop over samples for every parameter that allows it:

    importance_i = (1/N) Σ_n Σ_r w_nr |∂(v_nr · z_n)/∂θ_i|^power,     z = model(x): raw logits

Legend: N samples in all, B of them in a batch, K classes (columns of z), R cotangents per sample, P parameters.

Reading order: `estimators` (which v, w and power make the Fisher and MAS; and SCP, which squares after the mean),
`engine` (the mean over batches), `path` (which way holds for which parameter), `tape` (what a forward pass shows of
them), `operations` and `composed` (what has a closed form), `closed` (its sums), `per_sample` (anything else).
`local` is the other importance of MAS; `sums` and `traceless` are what all of them stand on.
"""

from lifelong.importance.engine import batch_power_sums, mean_power_gradient
from lifelong.importance.estimators import fisher, mas, sliced_cramer
from lifelong.importance.path import Path, choose_path

__all__ = ["Path", "batch_power_sums", "choose_path", "fisher", "mas", "mean_power_gradient", "sliced_cramer"]
