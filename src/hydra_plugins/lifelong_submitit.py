"""Launchers of hydra/launcher=slurm and local: submitit's, but that every job is heard although one was lost.

Hydra takes launchers from the namespace hydra_plugins alone.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus

from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Jobs, Outcome

with suppress(ImportError):  # the extra `slurm` is not installed
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    class _HearsAll(submitit_launcher.BaseSubmititLauncher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit all jobs as one array, wait for each."""
            from submitit import Job

            if self._EXECUTOR == "slurm" and shutil.which("srun") is None:
                raise ConfigError("hydra/launcher=slurm must find srun on the PATH of this machine, got none")
            returned: Sequence[JobReturn]
            with patch.object(Job, "results", _or_lost(Job.results)):
                returned = super().launch(job_overrides, initial_job_idx)
            for number, job in enumerate(returned):
                if Jobs.current and job.status is JobStatus.COMPLETED:
                    Jobs.current.hear(initial_job_idx + number, job_overrides[number], job.return_value)
            return returned

    def _or_lost(results: Any) -> Any:
        """A job's results, or a failure where its scheduler or its node lost it, which submitit raises for all jobs."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        def returned(job: Any) -> list[JobReturn]:
            try:
                return list(results(job))
            except (FailedJobError, UncompletedJobError):
                lost = f"job {job.job_id} ended without a result ({job.state}), its log is in {job.paths.folder}"
                failed = JobReturn(status=JobStatus.COMPLETED)
                failed.return_value = Outcome(failed=f"{lost}; the same command goes on")
                return [failed]

        return returned

    class SlurmLauncher(_HearsAll, submitit_launcher.SlurmLauncher):
        """hydra/launcher=slurm."""

    class LocalLauncher(_HearsAll, submitit_launcher.LocalLauncher):
        """hydra/launcher=local."""
