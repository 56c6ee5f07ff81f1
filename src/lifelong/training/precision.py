"""How a run's arithmetic is done: precision, TF32, compiled kernels; each refused where it would not do what it says.

All three change numbers, so all three are part of the run id.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

RECOMPILATIONS = 256
"""Torch's own limit, 8, is soon reached by exemplars, which give each task a last batch of another size."""


def check_precision(precision: str, device: torch.device, optimizer: Optimizer, *, clips: bool = False) -> None:
    """Raises ValueError if 16-mixed would be something else on this device, or hide gradients from the penalty, or if
    Lightning would refuse to clip."""
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if precision == "bf16-mixed" and clips and fused:
        raise ValueError(
            "optimizer.fused must be false with trainer.precision=bf16-mixed and trainer.gradient_clip_val (Lightning "
            "clips no gradients of a fused optimiser under mixed precision), got true"
        )
    if precision != "16-mixed":
        return
    if device.type == "cpu":
        raise ValueError(
            "trainer.precision must be 32-true or bf16-mixed on a CPU (Lightning would train bf16-mixed instead), "
            "got '16-mixed'"
        )
    if fused:
        raise ValueError(
            "optimizer.fused must be false with trainer.precision=16-mixed (a fused step divides the loss scale out of "
            "the gradients too late for penalty and clipping), got true"
        )


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Float32 matrix products and convolutions by TF32 (10 bits of mantissa); by default neither.

    Torch itself allows it to convolutions alone.

    Raises:
        ValueError: allowed, but the device is no CUDA device.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
    elif allowed:
        raise ValueError(f"tf32 must be false on a device without TF32, got true on {device.type}")


def compiled(backbone: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """x (B, ...) → logits (B, K) by torch.compile, for training steps; the module itself stays as it is.

    Every shape has a graph of its own: with dynamic shapes the kernels would depend on which batch came first, and a
    resumed run would differ from an uninterrupted one.

    Raises:
        ValueError: this machine cannot compile for the device.
    """
    torch.compiler.reset()  # graphs of earlier runs in this process would count towards the limit
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.zeros(2, device=device))
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"compile must be false on a machine that cannot compile for its {device.type} "
            f"(is there a C++ compiler?), got true: {reason.strip()}"
        ) from error
    return torch.compile(backbone.forward, dynamic=False)
