<?php
// GENERATED CODE -- DO NOT EDIT!

// Original file comments:
// The API for running models.
namespace Servegrpc\V1;

/**
 * Runs models.
 *
 * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
 * and whose domain is "servegrpc"; see errors.proto for the codes.
 */
class InferenceServiceClient extends \Grpc\BaseStub {

    /**
     * @param string $hostname hostname
     * @param array $opts channel options
     * @param \Grpc\Channel $channel (optional) re-use channel object
     */
    public function __construct($hostname, $opts, $channel = null) {
        parent::__construct($hostname, $opts, $channel);
    }

    /**
     * Runs a model once and returns its result.
     *
     * The server may join requests that wait at the same time into one batch; each still gets its own result and status.
     * Returns when the handler has answered, or at the deadline. Whether it may be repeated depends on the model.
     * @param \Servegrpc\V1\PredictRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function Predict(\Servegrpc\V1\PredictRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.InferenceService/Predict',
        $argument,
        ['\Servegrpc\V1\PredictResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Runs a model once and returns what its handler produces, message by message.
     *
     * A handler that returns once gives one message. A stream ends with one status, after the messages sent until then; its errors are those
     * of Predict, and RESOURCE_EXHAUSTED (SLOW_READER) for a caller that does not read, for longer than the model waits for it. Cancelling
     * the call stops the handler's work for it.
     * @param \Servegrpc\V1\PredictStreamRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\ServerStreamingCall
     */
    public function PredictStream(\Servegrpc\V1\PredictStreamRequest $argument,
      $metadata = [], $options = []) {
        return $this->_serverStreamRequest('/servegrpc.v1.InferenceService/PredictStream',
        $argument,
        ['\Servegrpc\V1\PredictStreamResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Runs a sequence of requests, answered one by one in the order sent, all by the same worker, so that the handler may keep state.
     *
     * The first request that fails ends the session with its status; ABORTED (SEQUENCE_LOST) says that the worker is gone, and the state with
     * it. The session ends when the caller half-closes, leaves, or is idle for longer than the model's sequenceMaxIdleMSec.
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\BidiStreamingCall
     */
    public function PredictSession($metadata = [], $options = []) {
        return $this->_bidiRequest('/servegrpc.v1.InferenceService/PredictSession',
        ['\Servegrpc\V1\PredictSessionResponse','decode'],
        $metadata, $options);
    }

}
