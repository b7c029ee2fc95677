"""The history checker: a load of calls of every kind, faults at random, and a check of what became of each call.

`python -m history` with `tests` on the path runs it for as long as asked; the tests run a short form.
"""
