"""TorchServe's StreamPredictions and StreamPredictions2: every message in order and one final status, also where TorchServe hangs."""

from queue import SimpleQueue

import grpc
import pytest
from google.rpc import error_details_pb2
from servers import until

SERVER_ERROR = "org.pytorch.serve.http.InternalServerException"
NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"

PARTS = """
from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    parts = int(data[0]["data"])
    for number in range(abs(parts)):
        send_intermediate_predict_response([f"part {number}"] * len(data), context.request_ids, "Intermediate", 200, context)
    if parts < 0:
        raise ValueError("in the middle")
    return ["last"] * len(data)
"""

MICRO_BATCHES = """
from ts.handler_utils.micro_batching import MicroBatching
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler

class Parts(BaseHandler):
    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self, micro_batch_size=1)

    def initialize(self, context):
        self.initialized = True

    def preprocess(self, rows):
        return [bytes(row["data"]).decode() for row in rows]

    def inference(self, words):
        index = self.handle.get_micro_batch_idx()
        for letter in words[0]:
            send_intermediate_predict_response([letter], {0: self.context.request_ids[index]}, "Intermediate", 200, self.context)
        return [f"{words[0]} was part {index}"]

    def postprocess(self, results):
        return results
"""

SUMS = """
sums = {}


def handle(data, context):
    if data is None:
        return None
    results = []
    for index, row in enumerate(data):
        sequence = context.get_sequence_id(index)
        sums[sequence] = sums.get(sequence, 0) + int(row["data"])
        results.append(str(sums[sequence]))
    return results
"""

STEPS = """
def handle(data, context):
    if data is None:
        return None
    if not hasattr(context, "cache"):
        context.cache = {}
    context.stopping_criteria = []
    results = []
    for index, row in enumerate(data):
        seen = context.cache.setdefault(context.get_request_id(index), 0)
        context.cache[context.get_request_id(index)] += 1
        results.append(f"token {seen}")
        context.stopping_criteria.append(lambda _, done=seen == 3: done)
    return results
"""

SEQUENCES = "sequenceBatching: true\nsequenceMaxIdleMSec: 60000\nmaxNumSequence: 20\nbatchSize: 2"

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def parts(register):
    return register("parts", code=PARTS)


@pytest.fixture(scope="module")
def sums(register):
    return register("sums", code=SUMS, config=SEQUENCES)


@pytest.fixture(scope="module")
def echo(register):
    return register("echo")


@pytest.fixture
def stream(torchserve):
    """Call StreamPredictions; returns the answers, and the call for its end."""

    def call(model, data=b"x", version=""):
        request = torchserve.request(model_name=model, model_version=version, input={"data": data})
        answers = torchserve.stream_predictions(request, timeout=60)
        received = []
        try:
            for answer in answers:
                received.append(answer.prediction)  # one by one: what came before an error counts
        except grpc.RpcError as error:
            return received, error.code().name, *error.details().split("\n")
        return received, answers.code().name

    return call


@pytest.fixture
def converse(torchserve):
    """Call StreamPredictions2 with requests, each a model, a sequence id and data, sent at once; returns the answers."""

    def call(*sent):
        requests = [
            torchserve.request(model_name=model, sequence_id=sequence_id, input={"data": data}) for model, sequence_id, data in sent
        ]
        return list(torchserve.stream_predictions2(iter(requests), timeout=60))

    return call


def test_parts(stream, parts):
    """A handler that sends parts → all of them, the last, and OK."""
    assert stream(parts, b"3") == ([b"part 0", b"part 1", b"part 2", b"last"], "OK")


def test_intermediate_messages_of_micro_batches(torchserve, register):
    """Two requests in one batch, each a micro-batch that sends for itself → each caller gets its own messages, in order."""
    model = register(code=MICRO_BATCHES, config="batchSize: 2\nmaxBatchDelay: 60000")
    streams = [
        torchserve.stream_predictions(torchserve.request(model_name=model, input={"data": word}), timeout=60) for word in (b"ab", b"xyz")
    ]
    received = [[answer.prediction.decode() for answer in stream] for stream in streams]
    assert [parts[:-1] for parts in received] == [["a", "b"], ["x", "y", "z"]]
    assert [parts[-1][:-1] for parts in received] == ["ab was part ", "xyz was part "]
    assert {parts[-1][-1] for parts in received} == {"0", "1"}


def test_fails_in_the_middle(torchserve, stream, parts):
    """A handler that fails after two parts → they come, then UNAVAILABLE; the model serves on."""
    assert stream(parts, b"-2") == ([b"part 0", b"part 1"], "UNAVAILABLE", "Prediction failed", SERVER_ERROR)
    assert stream(parts, b"0") == ([b"last"], "OK")


def test_plain_handler(stream, echo):
    """A handler that sends no parts → its one answer, and OK; TorchServe loses the worker."""
    assert [stream(echo), stream(echo)] == [([b"x"], "OK")] * 2


def test_unary_call_of_a_streaming_handler(torchserve, parts):
    """Predictions on a handler that sends parts → the last one; the next call is served."""
    assert [torchserve.predict(parts, b"2"), torchserve.predict(parts, b"2")] == [b"last", b"last"]


def test_refused(stream, echo):
    """No model name, an unknown model, an unknown version → the ends of Predictions."""
    assert stream("") == ([], "INTERNAL", "Parameter model_name is required.", "BadRequestException.()")
    assert stream("nobody") == ([], "INTERNAL", "Model not found: nobody", NOT_FOUND)
    assert stream(echo, version="9")[2] == f"Model version: 9 does not exist for model: {echo}"


def test_continuous_batching(stream, register):
    """A handler that is called step by step → each step's token, and OK; TorchServe sends the first and hangs."""
    steps = register("steps", code=STEPS, config="continuousBatching: true")
    assert stream(steps) == ([f"token {number}".encode() for number in range(4)], "OK")


def test_sequence(converse, sums):
    """The requests of two sequences → each one's sums in order, with its id, though the caller half-closes at once."""
    answers = converse((sums, "one", b"1"), (sums, "two", b"10"), (sums, "one", b"2"), (sums, "two", b"20"), (sums, "one", b"3"))
    by_id = {name: [answer.prediction for answer in answers if answer.sequence_id == name] for name in ("one", "two")}
    assert by_id == {"one": [b"1", b"3", b"6"], "two": [b"10", b"30"]}


def test_sequence_outlives_its_stream(converse, sums):
    """A sequence goes on in another stream → its state is there."""
    assert [converse((sums, "long", b"5"))[0].prediction, converse((sums, "long", b"6"))[0].prediction] == [b"5", b"11"]


def test_no_sequence_id(converse, register):
    """A model that keeps sequences, and a request without one → a message that says so, and the stream goes on."""
    sums = register("sums", code=SUMS, config=SEQUENCES)
    refused, answered = converse((sums, "", b"1"), (sums, "one", b"1"))
    detail = error_details_pb2.ErrorInfo()
    assert refused.status.details[0].Unpack(detail)
    assert (refused.status.code, refused.status.message, detail.reason) == (
        13, "Parameter sequenceId is required.", "BadRequestException.()",
    )  # fmt: skip
    assert answered.prediction == b"1"


def test_unknown_model(converse, echo):
    """A request for a model that is not there → a message with the status, and the stream goes on."""
    answers = converse(("nobody", "one", b"1"), (echo, "two", b"2"))
    by_id = {answer.sequence_id: answer for answer in answers}
    assert (by_id["one"].status.code, by_id["one"].status.message) == (13, "Model not found: nobody")
    assert by_id["two"].prediction == b"2"


def test_failing_request(converse, register):
    """A request whose handler fails → a message with the status and the sequence; the next request is answered."""
    sums = register("sums", code=SUMS, config=SEQUENCES)
    failed, answered = converse((sums, "one", b"no number"), (sums, "one", b"7"))
    assert (failed.sequence_id, failed.status.code, failed.status.message) == ("one", 14, "Prediction failed")
    assert answered.prediction == b"7"


def test_model_without_sequences(converse, echo):
    """A plain model, requests with and without ids → an answer for each, in order."""
    sent = [b"1", b"2", b"3"]
    assert [answer.prediction for answer in converse(*[(echo, "", data) for data in sent])] == sent
    assert [answer.prediction for answer in converse(*[(echo, "one", data) for data in sent])] == sent


def test_parts_in_a_conversation(converse, parts):
    """A handler that sends parts → all of them, each with the sequence."""
    answers = converse((parts, "one", b"2"))
    assert [(answer.prediction, answer.sequence_id) for answer in answers] == [(b"part 0", "one"), (b"part 1", "one"), (b"last", "one")]


def test_too_many_sequences(torchserve, converse, register):
    """More sequences than may be open → a message with the text for no worker."""
    sums = register("sums", code=SUMS, config=SEQUENCES.replace("20", "2"))
    converse((sums, "one", b"1"), (sums, "two", b"1"))
    (refused,) = converse((sums, "three", b"1"))
    assert refused.status.message.startswith(f'Model "{sums}" has no worker to serve inference request.')


def test_answers_before_the_next_request(torchserve, sums):
    """A caller that waits for each answer before it sends → the answers, one by one."""
    requests = SimpleQueue()
    answers = torchserve.stream_predictions2(iter(requests.get, None), timeout=60)
    seen = []
    for data in (b"1", b"2", b"3"):
        requests.put(torchserve.request(model_name=sums, sequence_id="talk", input={"data": data}))
        seen.append(next(answers).prediction)
    requests.put(None)
    assert list(answers) == []
    assert seen == [b"1", b"3", b"6"]


def test_many_requests(converse, echo):
    """More requests on one stream than are worked on at once, of several sequences → every answer, in order within a sequence."""
    sent = [(echo, f"s{number % 7}", str(number).encode()) for number in range(300)]
    answers = converse(*sent)
    for name in {sequence_id for _, sequence_id, _ in sent}:
        data = [data for _, sequence_id, data in sent if sequence_id == name]
        assert [answer.prediction for answer in answers if answer.sequence_id == name] == data


def test_caller_leaves(torchserve, register, gate):
    """A caller that leaves while its request is run → the model serves on, and the stream's own sequence is closed."""
    model = register("gate", config="maxNumSequence: 1")
    requests = SimpleQueue()
    requests.put(torchserve.request(model_name=model, input={"data": gate.path.encode()}))
    call = torchserve.stream_predictions2(iter(requests.get, None), timeout=60)
    gate.wait_entered()
    call.cancel()
    requests.put(None)
    gate.open()
    last = torchserve.request(model_name=model, input={"data": b""})
    until(lambda: [b"pid" in answer.prediction for answer in torchserve.stream_predictions2(iter([last]), timeout=60)] == [True])


def test_not_a_message(server, refused):
    """Bytes that are no PredictionsRequest → the stream ends with INVALID_ARGUMENT."""
    with grpc.insecure_channel(server.inference) as channel:
        call = channel.stream_stream("/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2")
        code, text, _ = refused(lambda: list(call(iter([b"\xff\xff\xff"]), timeout=60)))
    assert (code, text) == ("INVALID_ARGUMENT", "The request is not a valid PredictionsRequest message.")


def test_beside_our_own_names(torchserve, client, echo):
    """The same model by TorchServe's API and by servegrpc.v1 → the same answer."""
    assert torchserve.predict(echo, b"x") == client.predict(echo, b"x").output
