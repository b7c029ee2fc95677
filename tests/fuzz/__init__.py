"""Bytes that nobody should send: every decoder, archive, control message and rpc gets them, and must refuse or answer them.

`python -m fuzz` with `tests` on the path runs as many cases as asked; the tests run the same seeds for a short time.
"""
