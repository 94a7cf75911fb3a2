"""Interface of the outbox: messages that jobs have ended, for gateways to deliver to the jobs' webhooks.

The end of a job whose webhook wants its state makes a message, in the transaction that ends it. One gateway at a time
claims it; a claim that is not settled, because the gateway was killed, is over after its lease. So each message is
delivered at least once, always under one id, or is given up visibly; only if its job is deleted or run again before, it
is withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to be delivered now; ``attempt`` counts from 1, ``age_seconds`` from the end of the job."""

    job_id: str
    owner: str
    host: str
    epoch: int
    attempt: int
    age_seconds: float


class Outbox(Protocol):
    """The messages of a job table. Methods are synchronous, thread-safe and atomic, as those of ``JobStore``."""

    def claim(
        self, room: int, lease_seconds: float, busy_hosts: Collection[str] = ..., busy_owners: Collection[str] = ...
    ) -> Sequence[Delivery]:
        """Hand out messages that are due, the longest due first: at most ``room``, and one of each host and owner.

        Busy hosts and owners get none.
        """
        ...

    def delivered(self, delivery: Delivery, status: int) -> None:
        """Settle a message that was delivered. Nothing happens if the claim is over."""
        ...

    def retry(self, delivery: Delivery, seconds: float, status: int, error: str) -> None:
        """Make a message due again after some time. Nothing happens if the claim is over."""
        ...

    def give_up(self, delivery: Delivery, status: int, error: str) -> None:
        """Settle a message that cannot be delivered. Nothing happens if the claim is over."""
        ...

    def redeliver(self, owner: str | None, job_id: str) -> None:
        """Make the message of an ended job due now, whatever became of it. Raises: JobNotFound, NoMessage."""
        ...
