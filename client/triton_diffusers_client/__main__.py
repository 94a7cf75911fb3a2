"""``python -m triton_diffusers_client``."""

import sys

from triton_diffusers_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
