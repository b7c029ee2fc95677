<?php
// GENERATED CODE -- DO NOT EDIT!

// Original file comments:
// The API for registering, scaling and watching models.
namespace Servegrpc\V1;

/**
 * Changes and shows what is served. Served on the management port only.
 *
 * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
 */
class ManagementServiceClient extends \Grpc\BaseStub {

    /**
     * @param string $hostname hostname
     * @param array $opts channel options
     * @param \Grpc\Channel $channel (optional) re-use channel object
     */
    public function __construct($hostname, $opts, $channel = null) {
        parent::__construct($hostname, $opts, $channel);
    }

    /**
     * Opens an archive, registers it as a model version and starts its workers.
     *
     * Returns when the version is ACTIVE, or at once with no_wait. When it fails to load, the call ends with FAILED_PRECONDITION
     * (MODEL_LOAD_FAILED) naming the cause, and the version stays registered as FAILED until it is registered again or unregistered.
     * Registering a version that is there already and has not failed is ALREADY_EXISTS.
     * @param \Servegrpc\V1\RegisterModelRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function RegisterModel(\Servegrpc\V1\RegisterModelRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/RegisterModel',
        $argument,
        ['\Servegrpc\V1\RegisterModelResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Drains and removes one version of a model, or all of them.
     *
     * New requests are refused at once; those accepted are finished. Returns when the workers are gone, or at once with no_wait.
     * The default version can only go last, or with all the others. A repeated call is NOT_FOUND.
     * @param \Servegrpc\V1\UnregisterModelRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function UnregisterModel(\Servegrpc\V1\UnregisterModelRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/UnregisterModel',
        $argument,
        ['\Servegrpc\V1\UnregisterModelResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Returns one model with its versions and workers.
     * @param \Servegrpc\V1\GetModelRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function GetModel(\Servegrpc\V1\GetModelRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/GetModel',
        $argument,
        ['\Servegrpc\V1\GetModelResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Returns all models, sorted by name, page by page.
     * @param \Servegrpc\V1\ListModelsRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function ListModels(\Servegrpc\V1\ListModelsRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/ListModels',
        $argument,
        ['\Servegrpc\V1\ListModelsResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Sets the number of workers of a version; 0 keeps it registered without any.
     *
     * Returns when that many workers are ready, or at once with no_wait. Workers that go finish their batch first. Idempotent.
     * @param \Servegrpc\V1\ScaleModelRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function ScaleModel(\Servegrpc\V1\ScaleModelRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/ScaleModel',
        $argument,
        ['\Servegrpc\V1\ScaleModelResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Makes one version the one that requests without a version get. Idempotent.
     * @param \Servegrpc\V1\SetDefaultVersionRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\UnaryCall
     */
    public function SetDefaultVersion(\Servegrpc\V1\SetDefaultVersionRequest $argument,
      $metadata = [], $options = []) {
        return $this->_simpleRequest('/servegrpc.v1.ManagementService/SetDefaultVersion',
        $argument,
        ['\Servegrpc\V1\SetDefaultVersionResponse', 'decode'],
        $metadata, $options);
    }

    /**
     * Streams state changes: first the present state of every version asked for, then each change as it happens, until the caller ends it.
     * @param \Servegrpc\V1\WatchModelsRequest $argument input argument
     * @param array $metadata metadata
     * @param array $options call options
     * @return \Grpc\ServerStreamingCall
     */
    public function WatchModels(\Servegrpc\V1\WatchModelsRequest $argument,
      $metadata = [], $options = []) {
        return $this->_serverStreamRequest('/servegrpc.v1.ManagementService/WatchModels',
        $argument,
        ['\Servegrpc\V1\WatchModelsResponse', 'decode'],
        $metadata, $options);
    }

}
