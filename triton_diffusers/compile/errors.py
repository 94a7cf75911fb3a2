"""Why a build did not come to an artifact; every message is one line.

BuildError                  exit code 1: it was tried, and failed
 ├── AtWork                 another build of the same artifact has not ended yet
 ├── Refused                the artifact does not draw what the eager engine draws
 └── CannotBegin            exit code 2: an option, the model, the machine or the folder does not allow it
"""

from __future__ import annotations


class BuildError(Exception):
    """A build failed; what was finished of it is gone on with the next time."""

    code = 1


class AtWork(BuildError):
    """Another build of the same artifact, or a child process of one, is at work."""


class Refused(BuildError):
    """The artifact was built and draws something else than the eager engine."""


class CannotBegin(BuildError):
    """The build cannot even begin."""

    code = 2
