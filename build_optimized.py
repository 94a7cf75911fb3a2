#!/usr/bin/env python3
"""Build a compiled artifact of a model. The same as ``triton-diffusers build``; ``--help`` tells its options."""

from __future__ import annotations

import sys

from triton_diffusers.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
