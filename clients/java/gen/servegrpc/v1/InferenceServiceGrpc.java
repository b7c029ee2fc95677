package servegrpc.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Runs models.
 * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
 * and whose domain is "servegrpc"; see errors.proto for the codes.
 * </pre>
 */
@javax.annotation.Generated(
    value = "by gRPC proto compiler",
    comments = "Source: servegrpc/v1/inference.proto")
@io.grpc.stub.annotations.GrpcGenerated
public final class InferenceServiceGrpc {

  private InferenceServiceGrpc() {}

  public static final String SERVICE_NAME = "servegrpc.v1.InferenceService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.PredictRequest,
      servegrpc.v1.PredictResponse> getPredictMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Predict",
      requestType = servegrpc.v1.PredictRequest.class,
      responseType = servegrpc.v1.PredictResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.PredictRequest,
      servegrpc.v1.PredictResponse> getPredictMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.PredictRequest, servegrpc.v1.PredictResponse> getPredictMethod;
    if ((getPredictMethod = InferenceServiceGrpc.getPredictMethod) == null) {
      synchronized (InferenceServiceGrpc.class) {
        if ((getPredictMethod = InferenceServiceGrpc.getPredictMethod) == null) {
          InferenceServiceGrpc.getPredictMethod = getPredictMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.PredictRequest, servegrpc.v1.PredictResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Predict"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictResponse.getDefaultInstance()))
              .setSchemaDescriptor(new InferenceServiceMethodDescriptorSupplier("Predict"))
              .build();
        }
      }
    }
    return getPredictMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.PredictStreamRequest,
      servegrpc.v1.PredictStreamResponse> getPredictStreamMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "PredictStream",
      requestType = servegrpc.v1.PredictStreamRequest.class,
      responseType = servegrpc.v1.PredictStreamResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<servegrpc.v1.PredictStreamRequest,
      servegrpc.v1.PredictStreamResponse> getPredictStreamMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.PredictStreamRequest, servegrpc.v1.PredictStreamResponse> getPredictStreamMethod;
    if ((getPredictStreamMethod = InferenceServiceGrpc.getPredictStreamMethod) == null) {
      synchronized (InferenceServiceGrpc.class) {
        if ((getPredictStreamMethod = InferenceServiceGrpc.getPredictStreamMethod) == null) {
          InferenceServiceGrpc.getPredictStreamMethod = getPredictStreamMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.PredictStreamRequest, servegrpc.v1.PredictStreamResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "PredictStream"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictStreamRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictStreamResponse.getDefaultInstance()))
              .setSchemaDescriptor(new InferenceServiceMethodDescriptorSupplier("PredictStream"))
              .build();
        }
      }
    }
    return getPredictStreamMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.PredictSessionRequest,
      servegrpc.v1.PredictSessionResponse> getPredictSessionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "PredictSession",
      requestType = servegrpc.v1.PredictSessionRequest.class,
      responseType = servegrpc.v1.PredictSessionResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
  public static io.grpc.MethodDescriptor<servegrpc.v1.PredictSessionRequest,
      servegrpc.v1.PredictSessionResponse> getPredictSessionMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.PredictSessionRequest, servegrpc.v1.PredictSessionResponse> getPredictSessionMethod;
    if ((getPredictSessionMethod = InferenceServiceGrpc.getPredictSessionMethod) == null) {
      synchronized (InferenceServiceGrpc.class) {
        if ((getPredictSessionMethod = InferenceServiceGrpc.getPredictSessionMethod) == null) {
          InferenceServiceGrpc.getPredictSessionMethod = getPredictSessionMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.PredictSessionRequest, servegrpc.v1.PredictSessionResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "PredictSession"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictSessionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.PredictSessionResponse.getDefaultInstance()))
              .setSchemaDescriptor(new InferenceServiceMethodDescriptorSupplier("PredictSession"))
              .build();
        }
      }
    }
    return getPredictSessionMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static InferenceServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<InferenceServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<InferenceServiceStub>() {
        @java.lang.Override
        public InferenceServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new InferenceServiceStub(channel, callOptions);
        }
      };
    return InferenceServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static InferenceServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<InferenceServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<InferenceServiceBlockingStub>() {
        @java.lang.Override
        public InferenceServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new InferenceServiceBlockingStub(channel, callOptions);
        }
      };
    return InferenceServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static InferenceServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<InferenceServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<InferenceServiceFutureStub>() {
        @java.lang.Override
        public InferenceServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new InferenceServiceFutureStub(channel, callOptions);
        }
      };
    return InferenceServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Runs models.
   * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
   * and whose domain is "servegrpc"; see errors.proto for the codes.
   * </pre>
   */
  public static abstract class InferenceServiceImplBase implements io.grpc.BindableService {

    /**
     * <pre>
     * Runs a model once and returns its result.
     * The server may join requests that wait at the same time into one batch; each still gets its own result and status.
     * Returns when the handler has answered, or at the deadline. Whether it may be repeated depends on the model.
     * </pre>
     */
    public void predict(servegrpc.v1.PredictRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getPredictMethod(), responseObserver);
    }

    /**
     * <pre>
     * Runs a model once and returns what its handler produces, message by message.
     * A handler that returns once gives one message. A stream ends with one status, after the messages sent until then; its errors are those
     * of Predict, and RESOURCE_EXHAUSTED (SLOW_READER) for a caller that does not read, for longer than the model waits for it. Cancelling
     * the call stops the handler's work for it.
     * </pre>
     */
    public void predictStream(servegrpc.v1.PredictStreamRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictStreamResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getPredictStreamMethod(), responseObserver);
    }

    /**
     * <pre>
     * Runs a sequence of requests, answered one by one in the order sent, all by the same worker, so that the handler may keep state.
     * The first request that fails ends the session with its status; ABORTED (SEQUENCE_LOST) says that the worker is gone, and the state with
     * it. The session ends when the caller half-closes, leaves, or is idle for longer than the model's sequenceMaxIdleMSec.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<servegrpc.v1.PredictSessionRequest> predictSession(
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictSessionResponse> responseObserver) {
      return io.grpc.stub.ServerCalls.asyncUnimplementedStreamingCall(getPredictSessionMethod(), responseObserver);
    }

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
          .addMethod(
            getPredictMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.PredictRequest,
                servegrpc.v1.PredictResponse>(
                  this, METHODID_PREDICT)))
          .addMethod(
            getPredictStreamMethod(),
            io.grpc.stub.ServerCalls.asyncServerStreamingCall(
              new MethodHandlers<
                servegrpc.v1.PredictStreamRequest,
                servegrpc.v1.PredictStreamResponse>(
                  this, METHODID_PREDICT_STREAM)))
          .addMethod(
            getPredictSessionMethod(),
            io.grpc.stub.ServerCalls.asyncBidiStreamingCall(
              new MethodHandlers<
                servegrpc.v1.PredictSessionRequest,
                servegrpc.v1.PredictSessionResponse>(
                  this, METHODID_PREDICT_SESSION)))
          .build();
    }
  }

  /**
   * <pre>
   * Runs models.
   * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
   * and whose domain is "servegrpc"; see errors.proto for the codes.
   * </pre>
   */
  public static final class InferenceServiceStub extends io.grpc.stub.AbstractAsyncStub<InferenceServiceStub> {
    private InferenceServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected InferenceServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new InferenceServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Runs a model once and returns its result.
     * The server may join requests that wait at the same time into one batch; each still gets its own result and status.
     * Returns when the handler has answered, or at the deadline. Whether it may be repeated depends on the model.
     * </pre>
     */
    public void predict(servegrpc.v1.PredictRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getPredictMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Runs a model once and returns what its handler produces, message by message.
     * A handler that returns once gives one message. A stream ends with one status, after the messages sent until then; its errors are those
     * of Predict, and RESOURCE_EXHAUSTED (SLOW_READER) for a caller that does not read, for longer than the model waits for it. Cancelling
     * the call stops the handler's work for it.
     * </pre>
     */
    public void predictStream(servegrpc.v1.PredictStreamRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictStreamResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getPredictStreamMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Runs a sequence of requests, answered one by one in the order sent, all by the same worker, so that the handler may keep state.
     * The first request that fails ends the session with its status; ABORTED (SEQUENCE_LOST) says that the worker is gone, and the state with
     * it. The session ends when the caller half-closes, leaves, or is idle for longer than the model's sequenceMaxIdleMSec.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<servegrpc.v1.PredictSessionRequest> predictSession(
        io.grpc.stub.StreamObserver<servegrpc.v1.PredictSessionResponse> responseObserver) {
      return io.grpc.stub.ClientCalls.asyncBidiStreamingCall(
          getChannel().newCall(getPredictSessionMethod(), getCallOptions()), responseObserver);
    }
  }

  /**
   * <pre>
   * Runs models.
   * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
   * and whose domain is "servegrpc"; see errors.proto for the codes.
   * </pre>
   */
  public static final class InferenceServiceBlockingStub extends io.grpc.stub.AbstractBlockingStub<InferenceServiceBlockingStub> {
    private InferenceServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected InferenceServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new InferenceServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Runs a model once and returns its result.
     * The server may join requests that wait at the same time into one batch; each still gets its own result and status.
     * Returns when the handler has answered, or at the deadline. Whether it may be repeated depends on the model.
     * </pre>
     */
    public servegrpc.v1.PredictResponse predict(servegrpc.v1.PredictRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getPredictMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Runs a model once and returns what its handler produces, message by message.
     * A handler that returns once gives one message. A stream ends with one status, after the messages sent until then; its errors are those
     * of Predict, and RESOURCE_EXHAUSTED (SLOW_READER) for a caller that does not read, for longer than the model waits for it. Cancelling
     * the call stops the handler's work for it.
     * </pre>
     */
    public java.util.Iterator<servegrpc.v1.PredictStreamResponse> predictStream(
        servegrpc.v1.PredictStreamRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getPredictStreamMethod(), getCallOptions(), request);
    }
  }

  /**
   * <pre>
   * Runs models.
   * Every call ends with one status. An error carries a google.rpc.ErrorInfo whose reason is a name of ErrorReason
   * and whose domain is "servegrpc"; see errors.proto for the codes.
   * </pre>
   */
  public static final class InferenceServiceFutureStub extends io.grpc.stub.AbstractFutureStub<InferenceServiceFutureStub> {
    private InferenceServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected InferenceServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new InferenceServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Runs a model once and returns its result.
     * The server may join requests that wait at the same time into one batch; each still gets its own result and status.
     * Returns when the handler has answered, or at the deadline. Whether it may be repeated depends on the model.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.PredictResponse> predict(
        servegrpc.v1.PredictRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getPredictMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_PREDICT = 0;
  private static final int METHODID_PREDICT_STREAM = 1;
  private static final int METHODID_PREDICT_SESSION = 2;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final InferenceServiceImplBase serviceImpl;
    private final int methodId;

    MethodHandlers(InferenceServiceImplBase serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_PREDICT:
          serviceImpl.predict((servegrpc.v1.PredictRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.PredictResponse>) responseObserver);
          break;
        case METHODID_PREDICT_STREAM:
          serviceImpl.predictStream((servegrpc.v1.PredictStreamRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.PredictStreamResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_PREDICT_SESSION:
          return (io.grpc.stub.StreamObserver<Req>) serviceImpl.predictSession(
              (io.grpc.stub.StreamObserver<servegrpc.v1.PredictSessionResponse>) responseObserver);
        default:
          throw new AssertionError();
      }
    }
  }

  private static abstract class InferenceServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    InferenceServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return servegrpc.v1.InferenceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("InferenceService");
    }
  }

  private static final class InferenceServiceFileDescriptorSupplier
      extends InferenceServiceBaseDescriptorSupplier {
    InferenceServiceFileDescriptorSupplier() {}
  }

  private static final class InferenceServiceMethodDescriptorSupplier
      extends InferenceServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final String methodName;

    InferenceServiceMethodDescriptorSupplier(String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (InferenceServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new InferenceServiceFileDescriptorSupplier())
              .addMethod(getPredictMethod())
              .addMethod(getPredictStreamMethod())
              .addMethod(getPredictSessionMethod())
              .build();
        }
      }
    }
    return result;
  }
}
