"""What a worker does with the memory that a batch needed."""

import resource

PAGES = 150 * 2**20 // resource.getpagesize()
CODE = """
import resource
import torch

def handle(data, context):
    if not data:
        return None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(mib * 2**18) for mib in (30, 30, 30, 30, 20, 10)]
    del tensors
    return [resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before] * len(data)
"""


def test_kept_for_the_next_batch(register, client):
    """A handler takes 150 MiB for each batch, and frees it → the first batches touch fresh pages, ten later ones fewer than one."""
    model = register(code=CODE)
    touched = [client.predict(model, 1).output for _ in range(20)]
    assert touched[0] > PAGES
    assert sum(touched[10:]) < PAGES  # one of them may find its place divided by something small, and take another
