"""Running a runner as a process."""

from __future__ import annotations

import asyncio
import signal

from triton_diffusers.gateway.server import open_table, required_store
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.runner.runner import Runner
from triton_diffusers.runner.settings import RunnerOptions
from triton_diffusers.runner.triton import Triton
from triton_diffusers.settings import Settings


def run_runner(options: RunnerOptions, settings: GatewaySettings, limits: Settings) -> None:
    """Run jobs until SIGINT or SIGTERM. Raises ``SettingsError``."""
    results = ResultWriter(required_store(limits), limits.store_seconds)
    asyncio.run(_run(options, settings, results))


async def _run(options: RunnerOptions, settings: GatewaySettings, results: ResultWriter) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    table = open_table(settings)
    triton = Triton(options.triton)
    try:
        await Runner(table, triton, results, options).run(stopping)
    finally:
        await triton.close()
        await table.close()
