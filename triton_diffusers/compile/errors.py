"""Errors of a build; every message is one line.

BuildError                  exit code 1: the build failed
 ├── BuildInProgress        another build of the same artifact has not ended yet
 ├── QualityTooLow          the artifact's images differ too much from the eager engine's
 └── CannotBegin            exit code 2: an option, the model, the machine or the folder does not allow the build
"""

from __future__ import annotations


class BuildError(Exception):
    """A build failed; the next build resumes from its finished parts."""

    code = 1


class BuildInProgress(BuildError):
    """Another build of the same artifact, or a child process of one, is running."""


class QualityTooLow(BuildError):
    """The artifact was built, but its images differ too much from the eager engine's."""


class CannotBegin(BuildError):
    """The build cannot start."""

    code = 2
