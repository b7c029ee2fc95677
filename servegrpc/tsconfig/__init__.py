"""Reads TorchServe's configuration: its file, its variables and its options, as settings of ours."""
