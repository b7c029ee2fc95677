"""Behaviour of TorchServe's Python modules that nothing else here has; `worker.ts_alias` shows it under `ts…`."""

__version__ = "0.12.0"
"""The TorchServe that handlers written for it believe to run in."""
