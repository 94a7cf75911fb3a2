"""The log level of facts about a normal start that every operator wants to see; between INFO and WARNING."""

from __future__ import annotations

import logging

NOTICE = 25
logging.addLevelName(NOTICE, "NOTICE")
