"""Behaviour of TorchServe's Python modules that nothing else here has; `worker.ts_alias` shows it under `ts…`."""

import logging

__version__ = "0.12.0"
"""The TorchServe that handlers written for it believe to run in."""

logger = logging.getLogger("ts")
"""What `from ts.… import *` gives handlers to log with."""
