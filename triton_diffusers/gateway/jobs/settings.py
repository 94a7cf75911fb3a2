"""Settings of the job table: environment variables ``TRITON_DIFFUSERS_JOBS_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class JobTableSettings(BaseSettings):
    """Settings of the job table. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="TRITON_DIFFUSERS_JOBS_", frozen=True)

    lease_seconds: float = Field(
        30.0, gt=0, description="How long a job belongs to a runner that says nothing; then it is queued again."
    )
    max_attempts: int = Field(
        3,
        ge=1,
        description="How often a job is given to a runner; after that many losses or retryable errors it is dead.",
    )
    max_request_bytes: int = Field(1_000_000, ge=1, description="Largest request or result as JSON.")
    max_input_bytes: int = Field(64_000_000, ge=0, description="Largest sum of a job's inputs, such as its images.")
    input_retention_seconds: float = Field(
        3600.0, ge=0, description="How long the inputs of an ended job are kept; a dead job keeps them for `retention`."
    )
    result_retention_seconds: float = Field(
        7 * 86400.0, ge=0, description="How long the results of an ended job are kept."
    )
    job_retention_seconds: float = Field(
        30 * 86400.0, ge=0, description="How long the row of an ended job is kept, after its results."
    )
    idempotency_seconds: float = Field(86400.0, ge=0, description="How long idempotency keys are remembered.")
