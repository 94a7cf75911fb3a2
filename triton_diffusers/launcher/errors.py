"""Errors of starting a server, as one tree; every message is one line that says what to do.

LaunchError
 ├── BadOption                an option's value cannot be used
 ├── PortUnavailable          a port is in use, not allowed, or asked for twice
 ├── ModelDirectoryMissing    the model directory is not there or is not one
 ├── BadRepository            the model repository is not there, is empty, or has an unreadable config.pbtxt
 ├── TritonNotFound           neither a system tritonserver nor the wheel's
 ├── PythonUnsupported        the tritonserver at hand has no stub for the running Python
 ├── StartFailed              tritonserver was started and gave up
 └── DemoFailed               the demo's server did not start or did not draw
"""

from __future__ import annotations


class LaunchError(Exception):
    """Base of everything that keeps ``triton-diffusers serve`` from serving."""


class BadOption(LaunchError):
    """An option's value cannot be used; the message names the option and the value."""


class PortUnavailable(LaunchError):
    """A port cannot be listened on; the message names the port, the reason and the option."""


class ModelDirectoryMissing(LaunchError):
    """The model directory does not exist or holds no ``base_model/``."""


class BadRepository(LaunchError):
    """The model repository cannot be served; the message names the file or folder."""


class TritonNotFound(LaunchError):
    """There is no usable ``tritonserver`` on this machine; the message says how to get one."""


class PythonUnsupported(LaunchError):
    """Triton's Python backend cannot run the Python that runs this program; the message lists those it can."""


class StartFailed(LaunchError):
    """``tritonserver`` ended before it was ready; the message carries its reason."""


class DemoFailed(LaunchError):
    """The demo drew nothing; the message carries the server's reason."""
