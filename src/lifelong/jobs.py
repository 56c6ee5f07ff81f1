"""The jobs of a multirun, as the command that started them sees them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def multirun_job() -> str | None:
    """The overrides of the running job of a multirun, as typed; None outside one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return " ".join(HydraConfig.get().overrides.task)


@contextmanager
def failed_jobs_to(handle: Callable[[Sequence[str], Exception], Any]) -> Iterator[None]:
    """Within the block the result of a job that failed is handle(overrides, error); Hydra itself prints and raises."""
    from hydra.core.utils import JobReturn, JobStatus

    original = JobReturn.return_value

    def result(job: JobReturn) -> Any:
        return handle(job.overrides or [], job._return_value) if job.status is JobStatus.FAILED else original.fget(job)

    JobReturn.return_value = property(result, original.fset)
    try:
        yield
    finally:
        JobReturn.return_value = original
