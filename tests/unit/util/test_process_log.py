"""The library's log in a process of a server."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.unit.conftest import ROOT


def test_lines_are_utf8_on_standard_error_in_any_locale() -> None:
    program = (
        "import logging; from triton_diffusers.util.process_log import log_to_stderr; log_to_stderr('sd_base');"
        "log_to_stderr('sd_base'); logging.getLogger('triton_diffusers.optimize').info('compiling \\u2026');"
        "logging.getLogger('other').info('chatter')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    written = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    ).stderr.decode("utf-8")
    (line,) = written.splitlines()
    assert line.startswith("triton-diffusers: ")
    assert line.endswith(" INFO sd_base: compiling …")
