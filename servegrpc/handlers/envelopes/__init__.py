"""Envelopes: JSON formats of requests and replies, put around a handler that knows nothing of them."""
