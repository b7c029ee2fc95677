"""Reads handwritten digits with Triton's client, by the Open Inference Protocol: python triton_client.py ADDRESS MANAGEMENT [PICTURE].

Triton's clients send tensors, so this one makes the picture a tensor itself. What others call a session is a sequence here, and instead of
archives it loads names of the model store, so the server needs one: servegrpc serve --model-store FOLDER digits.mar.
"""

import sys
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"


def tensor(pixels: np.ndarray) -> triton.InferInput:
    data = triton.InferInput("data", [1, 8, 8], "FP32")
    data.set_data_from_numpy(pixels.astype(np.float32).reshape(1, 8, 8))
    return data


def show(step: str, reply: triton.InferResult) -> None:
    about = reply.get_response()
    name = reply.as_numpy("name").item().decode()
    print(f"{step}: digit {reply.as_numpy('digit').item()}, {name}, by {about.model_name} {about.model_version}")


def state(management: triton.InferenceServerClient, name: str) -> str:
    """Return whether a model of the server or of its store is READY, or UNAVAILABLE."""
    return next(model.state for model in management.get_model_repository_index().models if model.name == name)


def walk(inference: triton.InferenceServerClient, management: triton.InferenceServerClient, picture: np.ndarray) -> None:
    print("server:", "live" if inference.is_server_live() else "dead")

    # The server takes this on the inference port too when it is started with --allow-repository-api.
    print("models:", ", ".join(model.name for model in management.get_model_repository_index().models))

    show("picture", inference.infer("digits", [tensor(picture)], client_timeout=10))

    bar = np.array([0, 0, 0, 1, 1, 0, 0, 0] * 8)
    show("tensor", inference.infer("digits", [tensor(bar)], client_timeout=10))

    replies: SimpleQueue = SimpleQueue()
    inference.start_stream(lambda result, error: replies.put(error or result), stream_timeout=10)
    inference.async_stream_infer("digits", [tensor(picture)], enable_empty_final_response=True)
    final = False
    while not final:
        reply = replies.get()
        if reply.get_response().outputs:  # the final message may have none
            show("stream", reply)
        final = reply.get_response().parameters["triton_final_response"].bool_param
    inference.stop_stream()

    show("session", inference.infer("digits", [tensor(picture)], sequence_id=7, sequence_start=True, client_timeout=10))
    show("session", inference.infer("digits", [tensor(bar)], sequence_id=7, sequence_end=True, client_timeout=10))

    inference.start_stream(lambda result, error: replies.put(error or result), stream_timeout=0.2)  # waits for requests until its deadline
    print("deadline:", replies.get().status().removeprefix("StatusCode."))
    inference.stop_stream()

    try:
        inference.infer("no-such-model", [tensor(picture)], client_timeout=10)
    except InferenceServerException as error:  # its reason is in the trailing metadata, which tritonclient does not hand out
        print("no-such-model:", error.status().removeprefix("StatusCode."))
    else:
        sys.exit("no-such-model answered")

    management.load_model("digits")  # it is there already, so this changes nothing; without a model store it fails
    management.unload_model("digits")
    print("unloaded: digits", state(management, "digits"))
    management.load_model("digits")
    print("loaded: digits", state(management, "digits"))


def main(address: str, management: str, picture: str | Path = SAMPLE) -> None:
    with Image.open(picture) as image:
        pixels = np.array(image.convert("L").resize((8, 8), Image.Resampling.BOX)) / 240  # as the handler does it
    with triton.InferenceServerClient(address) as client, triton.InferenceServerClient(management) as management_client:
        walk(client, management_client, pixels)
    print("python-triton OK")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python triton_client.py ADDRESS MANAGEMENT [PICTURE]")
    main(*sys.argv[1:])
