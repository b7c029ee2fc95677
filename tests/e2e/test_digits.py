"""The digits example through a real server."""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from servers import DIGITS


@pytest.fixture(scope="module")
def held_out():
    """Each held-out picture as PNG, with what the plain model makes of it: digit and probability."""
    sys.path.insert(0, str(DIGITS))
    data, network = importlib.import_module("data"), importlib.import_module("model")
    sys.path.remove(str(DIGITS))
    for name in ("data", "model"):  # plain names, which other tests may use too
        sys.modules.pop(name)
    plain = network.DigitNet().eval()
    plain.load_state_dict(torch.load(DIGITS / "digits.pt", weights_only=True))
    _, pictures, _, _ = data.split()
    with torch.inference_mode():
        best = torch.softmax(plain(torch.from_numpy(pictures).float().div(data.WHITE).unsqueeze(1)), dim=1).max(dim=1)
    pngs = [png for png, _ in data.held_out()]
    return list(zip(pngs, best.indices.tolist(), best.values.tolist(), strict=True))


@pytest.mark.slow
def test_held_out_pictures(client, digits_archive, held_out):
    """All held-out pictures, 64 at a time → exactly the digits of the plain model, several pictures to a batch."""
    client.register(str(digits_archive), name="digits-held-out", workers=2)
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda picture: client.predict("digits-held-out", picture[0]), held_out))
    client.unregister("digits-held-out")
    assert len(replies) == 450
    assert [reply.output["digit"] for reply in replies] == [digit for _, digit, _ in held_out]
    assert [reply.output["probability"] for reply in replies] == pytest.approx([sure for _, _, sure in held_out], abs=1e-4)
    assert max(reply.timing.batch_size for reply in replies) > 1
