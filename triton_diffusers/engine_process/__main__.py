"""``python -m triton_diffusers.engine_process NAME NUMBER``, with the settings in the environment.

Started by ``supervisor``. ``NAME`` is the engine's name in the runtime directory, ``NUMBER`` counts the engines.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future

from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.settings import Settings
from triton_diffusers.util.process_log import log_to_stderr


def main(name: str, number: str) -> int:
    """Serve until SIGTERM, and return the exit code."""
    log_to_stderr(f"engine {number}")
    settings = Settings.read()
    chosen: Future[EngineChoice] = Future()
    try:
        choice = EngineChoice(settings)
        choice.begin()
        chosen.set_result(choice)
    except Exception as error:  # noqa: BLE001  # told to the clients, once there are any
        chosen.set_exception(error)

    from triton_diffusers.engine_process.server import run  # takes seconds, while graphs are loaded

    return run(settings, settings.runtime_dir.absolute() / f"{name}.sock", int(number), chosen)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
