"""Serves packaged PyTorch models over gRPC. Importing this package loads nothing else; see `servegrpc.client` and `servegrpc.handlers`."""

__version__ = "0.1.0"
