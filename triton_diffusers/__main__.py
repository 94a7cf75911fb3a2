"""``python -m triton_diffusers`` is the command ``triton-diffusers``."""

import sys

from triton_diffusers.cli.main import main

sys.exit(main())
