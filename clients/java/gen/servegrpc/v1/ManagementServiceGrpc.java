package servegrpc.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Changes and shows what is served. Served on the management port only.
 * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
 * </pre>
 */
@javax.annotation.Generated(
    value = "by gRPC proto compiler",
    comments = "Source: servegrpc/v1/management.proto")
@io.grpc.stub.annotations.GrpcGenerated
public final class ManagementServiceGrpc {

  private ManagementServiceGrpc() {}

  public static final String SERVICE_NAME = "servegrpc.v1.ManagementService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.RegisterModelRequest,
      servegrpc.v1.RegisterModelResponse> getRegisterModelMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "RegisterModel",
      requestType = servegrpc.v1.RegisterModelRequest.class,
      responseType = servegrpc.v1.RegisterModelResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.RegisterModelRequest,
      servegrpc.v1.RegisterModelResponse> getRegisterModelMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.RegisterModelRequest, servegrpc.v1.RegisterModelResponse> getRegisterModelMethod;
    if ((getRegisterModelMethod = ManagementServiceGrpc.getRegisterModelMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getRegisterModelMethod = ManagementServiceGrpc.getRegisterModelMethod) == null) {
          ManagementServiceGrpc.getRegisterModelMethod = getRegisterModelMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.RegisterModelRequest, servegrpc.v1.RegisterModelResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "RegisterModel"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.RegisterModelRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.RegisterModelResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("RegisterModel"))
              .build();
        }
      }
    }
    return getRegisterModelMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.UnregisterModelRequest,
      servegrpc.v1.UnregisterModelResponse> getUnregisterModelMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "UnregisterModel",
      requestType = servegrpc.v1.UnregisterModelRequest.class,
      responseType = servegrpc.v1.UnregisterModelResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.UnregisterModelRequest,
      servegrpc.v1.UnregisterModelResponse> getUnregisterModelMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.UnregisterModelRequest, servegrpc.v1.UnregisterModelResponse> getUnregisterModelMethod;
    if ((getUnregisterModelMethod = ManagementServiceGrpc.getUnregisterModelMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getUnregisterModelMethod = ManagementServiceGrpc.getUnregisterModelMethod) == null) {
          ManagementServiceGrpc.getUnregisterModelMethod = getUnregisterModelMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.UnregisterModelRequest, servegrpc.v1.UnregisterModelResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "UnregisterModel"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.UnregisterModelRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.UnregisterModelResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("UnregisterModel"))
              .build();
        }
      }
    }
    return getUnregisterModelMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.GetModelRequest,
      servegrpc.v1.GetModelResponse> getGetModelMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetModel",
      requestType = servegrpc.v1.GetModelRequest.class,
      responseType = servegrpc.v1.GetModelResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.GetModelRequest,
      servegrpc.v1.GetModelResponse> getGetModelMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.GetModelRequest, servegrpc.v1.GetModelResponse> getGetModelMethod;
    if ((getGetModelMethod = ManagementServiceGrpc.getGetModelMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getGetModelMethod = ManagementServiceGrpc.getGetModelMethod) == null) {
          ManagementServiceGrpc.getGetModelMethod = getGetModelMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.GetModelRequest, servegrpc.v1.GetModelResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetModel"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.GetModelRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.GetModelResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("GetModel"))
              .build();
        }
      }
    }
    return getGetModelMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.ListModelsRequest,
      servegrpc.v1.ListModelsResponse> getListModelsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListModels",
      requestType = servegrpc.v1.ListModelsRequest.class,
      responseType = servegrpc.v1.ListModelsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.ListModelsRequest,
      servegrpc.v1.ListModelsResponse> getListModelsMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.ListModelsRequest, servegrpc.v1.ListModelsResponse> getListModelsMethod;
    if ((getListModelsMethod = ManagementServiceGrpc.getListModelsMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getListModelsMethod = ManagementServiceGrpc.getListModelsMethod) == null) {
          ManagementServiceGrpc.getListModelsMethod = getListModelsMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.ListModelsRequest, servegrpc.v1.ListModelsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListModels"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.ListModelsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.ListModelsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("ListModels"))
              .build();
        }
      }
    }
    return getListModelsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.ScaleModelRequest,
      servegrpc.v1.ScaleModelResponse> getScaleModelMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ScaleModel",
      requestType = servegrpc.v1.ScaleModelRequest.class,
      responseType = servegrpc.v1.ScaleModelResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.ScaleModelRequest,
      servegrpc.v1.ScaleModelResponse> getScaleModelMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.ScaleModelRequest, servegrpc.v1.ScaleModelResponse> getScaleModelMethod;
    if ((getScaleModelMethod = ManagementServiceGrpc.getScaleModelMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getScaleModelMethod = ManagementServiceGrpc.getScaleModelMethod) == null) {
          ManagementServiceGrpc.getScaleModelMethod = getScaleModelMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.ScaleModelRequest, servegrpc.v1.ScaleModelResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ScaleModel"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.ScaleModelRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.ScaleModelResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("ScaleModel"))
              .build();
        }
      }
    }
    return getScaleModelMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.SetDefaultVersionRequest,
      servegrpc.v1.SetDefaultVersionResponse> getSetDefaultVersionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "SetDefaultVersion",
      requestType = servegrpc.v1.SetDefaultVersionRequest.class,
      responseType = servegrpc.v1.SetDefaultVersionResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<servegrpc.v1.SetDefaultVersionRequest,
      servegrpc.v1.SetDefaultVersionResponse> getSetDefaultVersionMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.SetDefaultVersionRequest, servegrpc.v1.SetDefaultVersionResponse> getSetDefaultVersionMethod;
    if ((getSetDefaultVersionMethod = ManagementServiceGrpc.getSetDefaultVersionMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getSetDefaultVersionMethod = ManagementServiceGrpc.getSetDefaultVersionMethod) == null) {
          ManagementServiceGrpc.getSetDefaultVersionMethod = getSetDefaultVersionMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.SetDefaultVersionRequest, servegrpc.v1.SetDefaultVersionResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "SetDefaultVersion"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.SetDefaultVersionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.SetDefaultVersionResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("SetDefaultVersion"))
              .build();
        }
      }
    }
    return getSetDefaultVersionMethod;
  }

  private static volatile io.grpc.MethodDescriptor<servegrpc.v1.WatchModelsRequest,
      servegrpc.v1.WatchModelsResponse> getWatchModelsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "WatchModels",
      requestType = servegrpc.v1.WatchModelsRequest.class,
      responseType = servegrpc.v1.WatchModelsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<servegrpc.v1.WatchModelsRequest,
      servegrpc.v1.WatchModelsResponse> getWatchModelsMethod() {
    io.grpc.MethodDescriptor<servegrpc.v1.WatchModelsRequest, servegrpc.v1.WatchModelsResponse> getWatchModelsMethod;
    if ((getWatchModelsMethod = ManagementServiceGrpc.getWatchModelsMethod) == null) {
      synchronized (ManagementServiceGrpc.class) {
        if ((getWatchModelsMethod = ManagementServiceGrpc.getWatchModelsMethod) == null) {
          ManagementServiceGrpc.getWatchModelsMethod = getWatchModelsMethod =
              io.grpc.MethodDescriptor.<servegrpc.v1.WatchModelsRequest, servegrpc.v1.WatchModelsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "WatchModels"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.WatchModelsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  servegrpc.v1.WatchModelsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ManagementServiceMethodDescriptorSupplier("WatchModels"))
              .build();
        }
      }
    }
    return getWatchModelsMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static ManagementServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ManagementServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ManagementServiceStub>() {
        @java.lang.Override
        public ManagementServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ManagementServiceStub(channel, callOptions);
        }
      };
    return ManagementServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static ManagementServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ManagementServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ManagementServiceBlockingStub>() {
        @java.lang.Override
        public ManagementServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ManagementServiceBlockingStub(channel, callOptions);
        }
      };
    return ManagementServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static ManagementServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ManagementServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ManagementServiceFutureStub>() {
        @java.lang.Override
        public ManagementServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ManagementServiceFutureStub(channel, callOptions);
        }
      };
    return ManagementServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Changes and shows what is served. Served on the management port only.
   * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
   * </pre>
   */
  public static abstract class ManagementServiceImplBase implements io.grpc.BindableService {

    /**
     * <pre>
     * Opens an archive, registers it as a model version and starts its workers.
     * Returns when the version is ACTIVE, or at once with no_wait. When it fails to load, the call ends with FAILED_PRECONDITION
     * (MODEL_LOAD_FAILED) naming the cause, and the version stays registered as FAILED until it is registered again or unregistered.
     * Registering a version that is there already and has not failed is ALREADY_EXISTS.
     * </pre>
     */
    public void registerModel(servegrpc.v1.RegisterModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.RegisterModelResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRegisterModelMethod(), responseObserver);
    }

    /**
     * <pre>
     * Drains and removes one version of a model, or all of them.
     * New requests are refused at once; those accepted are finished. Returns when the workers are gone, or at once with no_wait.
     * The default version can only go last, or with all the others. A repeated call is NOT_FOUND.
     * </pre>
     */
    public void unregisterModel(servegrpc.v1.UnregisterModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.UnregisterModelResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getUnregisterModelMethod(), responseObserver);
    }

    /**
     * <pre>
     * Returns one model with its versions and workers.
     * </pre>
     */
    public void getModel(servegrpc.v1.GetModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.GetModelResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetModelMethod(), responseObserver);
    }

    /**
     * <pre>
     * Returns all models, sorted by name, page by page.
     * </pre>
     */
    public void listModels(servegrpc.v1.ListModelsRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.ListModelsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListModelsMethod(), responseObserver);
    }

    /**
     * <pre>
     * Sets the number of workers of a version; 0 keeps it registered without any.
     * Returns when that many workers are ready, or at once with no_wait. Workers that go finish their batch first. Idempotent.
     * </pre>
     */
    public void scaleModel(servegrpc.v1.ScaleModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.ScaleModelResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getScaleModelMethod(), responseObserver);
    }

    /**
     * <pre>
     * Makes one version the one that requests without a version get. Idempotent.
     * </pre>
     */
    public void setDefaultVersion(servegrpc.v1.SetDefaultVersionRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.SetDefaultVersionResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getSetDefaultVersionMethod(), responseObserver);
    }

    /**
     * <pre>
     * Streams state changes: first the present state of every version asked for, then each change as it happens, until the caller ends it.
     * </pre>
     */
    public void watchModels(servegrpc.v1.WatchModelsRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.WatchModelsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getWatchModelsMethod(), responseObserver);
    }

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
          .addMethod(
            getRegisterModelMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.RegisterModelRequest,
                servegrpc.v1.RegisterModelResponse>(
                  this, METHODID_REGISTER_MODEL)))
          .addMethod(
            getUnregisterModelMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.UnregisterModelRequest,
                servegrpc.v1.UnregisterModelResponse>(
                  this, METHODID_UNREGISTER_MODEL)))
          .addMethod(
            getGetModelMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.GetModelRequest,
                servegrpc.v1.GetModelResponse>(
                  this, METHODID_GET_MODEL)))
          .addMethod(
            getListModelsMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.ListModelsRequest,
                servegrpc.v1.ListModelsResponse>(
                  this, METHODID_LIST_MODELS)))
          .addMethod(
            getScaleModelMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.ScaleModelRequest,
                servegrpc.v1.ScaleModelResponse>(
                  this, METHODID_SCALE_MODEL)))
          .addMethod(
            getSetDefaultVersionMethod(),
            io.grpc.stub.ServerCalls.asyncUnaryCall(
              new MethodHandlers<
                servegrpc.v1.SetDefaultVersionRequest,
                servegrpc.v1.SetDefaultVersionResponse>(
                  this, METHODID_SET_DEFAULT_VERSION)))
          .addMethod(
            getWatchModelsMethod(),
            io.grpc.stub.ServerCalls.asyncServerStreamingCall(
              new MethodHandlers<
                servegrpc.v1.WatchModelsRequest,
                servegrpc.v1.WatchModelsResponse>(
                  this, METHODID_WATCH_MODELS)))
          .build();
    }
  }

  /**
   * <pre>
   * Changes and shows what is served. Served on the management port only.
   * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
   * </pre>
   */
  public static final class ManagementServiceStub extends io.grpc.stub.AbstractAsyncStub<ManagementServiceStub> {
    private ManagementServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ManagementServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ManagementServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Opens an archive, registers it as a model version and starts its workers.
     * Returns when the version is ACTIVE, or at once with no_wait. When it fails to load, the call ends with FAILED_PRECONDITION
     * (MODEL_LOAD_FAILED) naming the cause, and the version stays registered as FAILED until it is registered again or unregistered.
     * Registering a version that is there already and has not failed is ALREADY_EXISTS.
     * </pre>
     */
    public void registerModel(servegrpc.v1.RegisterModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.RegisterModelResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRegisterModelMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Drains and removes one version of a model, or all of them.
     * New requests are refused at once; those accepted are finished. Returns when the workers are gone, or at once with no_wait.
     * The default version can only go last, or with all the others. A repeated call is NOT_FOUND.
     * </pre>
     */
    public void unregisterModel(servegrpc.v1.UnregisterModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.UnregisterModelResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getUnregisterModelMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Returns one model with its versions and workers.
     * </pre>
     */
    public void getModel(servegrpc.v1.GetModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.GetModelResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetModelMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Returns all models, sorted by name, page by page.
     * </pre>
     */
    public void listModels(servegrpc.v1.ListModelsRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.ListModelsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListModelsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Sets the number of workers of a version; 0 keeps it registered without any.
     * Returns when that many workers are ready, or at once with no_wait. Workers that go finish their batch first. Idempotent.
     * </pre>
     */
    public void scaleModel(servegrpc.v1.ScaleModelRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.ScaleModelResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getScaleModelMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Makes one version the one that requests without a version get. Idempotent.
     * </pre>
     */
    public void setDefaultVersion(servegrpc.v1.SetDefaultVersionRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.SetDefaultVersionResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getSetDefaultVersionMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Streams state changes: first the present state of every version asked for, then each change as it happens, until the caller ends it.
     * </pre>
     */
    public void watchModels(servegrpc.v1.WatchModelsRequest request,
        io.grpc.stub.StreamObserver<servegrpc.v1.WatchModelsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getWatchModelsMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * <pre>
   * Changes and shows what is served. Served on the management port only.
   * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
   * </pre>
   */
  public static final class ManagementServiceBlockingStub extends io.grpc.stub.AbstractBlockingStub<ManagementServiceBlockingStub> {
    private ManagementServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ManagementServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ManagementServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Opens an archive, registers it as a model version and starts its workers.
     * Returns when the version is ACTIVE, or at once with no_wait. When it fails to load, the call ends with FAILED_PRECONDITION
     * (MODEL_LOAD_FAILED) naming the cause, and the version stays registered as FAILED until it is registered again or unregistered.
     * Registering a version that is there already and has not failed is ALREADY_EXISTS.
     * </pre>
     */
    public servegrpc.v1.RegisterModelResponse registerModel(servegrpc.v1.RegisterModelRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRegisterModelMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Drains and removes one version of a model, or all of them.
     * New requests are refused at once; those accepted are finished. Returns when the workers are gone, or at once with no_wait.
     * The default version can only go last, or with all the others. A repeated call is NOT_FOUND.
     * </pre>
     */
    public servegrpc.v1.UnregisterModelResponse unregisterModel(servegrpc.v1.UnregisterModelRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getUnregisterModelMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Returns one model with its versions and workers.
     * </pre>
     */
    public servegrpc.v1.GetModelResponse getModel(servegrpc.v1.GetModelRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetModelMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Returns all models, sorted by name, page by page.
     * </pre>
     */
    public servegrpc.v1.ListModelsResponse listModels(servegrpc.v1.ListModelsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListModelsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Sets the number of workers of a version; 0 keeps it registered without any.
     * Returns when that many workers are ready, or at once with no_wait. Workers that go finish their batch first. Idempotent.
     * </pre>
     */
    public servegrpc.v1.ScaleModelResponse scaleModel(servegrpc.v1.ScaleModelRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getScaleModelMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Makes one version the one that requests without a version get. Idempotent.
     * </pre>
     */
    public servegrpc.v1.SetDefaultVersionResponse setDefaultVersion(servegrpc.v1.SetDefaultVersionRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getSetDefaultVersionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Streams state changes: first the present state of every version asked for, then each change as it happens, until the caller ends it.
     * </pre>
     */
    public java.util.Iterator<servegrpc.v1.WatchModelsResponse> watchModels(
        servegrpc.v1.WatchModelsRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getWatchModelsMethod(), getCallOptions(), request);
    }
  }

  /**
   * <pre>
   * Changes and shows what is served. Served on the management port only.
   * Errors carry a google.rpc.ErrorInfo as described in errors.proto.
   * </pre>
   */
  public static final class ManagementServiceFutureStub extends io.grpc.stub.AbstractFutureStub<ManagementServiceFutureStub> {
    private ManagementServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ManagementServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ManagementServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Opens an archive, registers it as a model version and starts its workers.
     * Returns when the version is ACTIVE, or at once with no_wait. When it fails to load, the call ends with FAILED_PRECONDITION
     * (MODEL_LOAD_FAILED) naming the cause, and the version stays registered as FAILED until it is registered again or unregistered.
     * Registering a version that is there already and has not failed is ALREADY_EXISTS.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.RegisterModelResponse> registerModel(
        servegrpc.v1.RegisterModelRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRegisterModelMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Drains and removes one version of a model, or all of them.
     * New requests are refused at once; those accepted are finished. Returns when the workers are gone, or at once with no_wait.
     * The default version can only go last, or with all the others. A repeated call is NOT_FOUND.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.UnregisterModelResponse> unregisterModel(
        servegrpc.v1.UnregisterModelRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getUnregisterModelMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Returns one model with its versions and workers.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.GetModelResponse> getModel(
        servegrpc.v1.GetModelRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetModelMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Returns all models, sorted by name, page by page.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.ListModelsResponse> listModels(
        servegrpc.v1.ListModelsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListModelsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Sets the number of workers of a version; 0 keeps it registered without any.
     * Returns when that many workers are ready, or at once with no_wait. Workers that go finish their batch first. Idempotent.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.ScaleModelResponse> scaleModel(
        servegrpc.v1.ScaleModelRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getScaleModelMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Makes one version the one that requests without a version get. Idempotent.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<servegrpc.v1.SetDefaultVersionResponse> setDefaultVersion(
        servegrpc.v1.SetDefaultVersionRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getSetDefaultVersionMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_REGISTER_MODEL = 0;
  private static final int METHODID_UNREGISTER_MODEL = 1;
  private static final int METHODID_GET_MODEL = 2;
  private static final int METHODID_LIST_MODELS = 3;
  private static final int METHODID_SCALE_MODEL = 4;
  private static final int METHODID_SET_DEFAULT_VERSION = 5;
  private static final int METHODID_WATCH_MODELS = 6;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final ManagementServiceImplBase serviceImpl;
    private final int methodId;

    MethodHandlers(ManagementServiceImplBase serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_REGISTER_MODEL:
          serviceImpl.registerModel((servegrpc.v1.RegisterModelRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.RegisterModelResponse>) responseObserver);
          break;
        case METHODID_UNREGISTER_MODEL:
          serviceImpl.unregisterModel((servegrpc.v1.UnregisterModelRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.UnregisterModelResponse>) responseObserver);
          break;
        case METHODID_GET_MODEL:
          serviceImpl.getModel((servegrpc.v1.GetModelRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.GetModelResponse>) responseObserver);
          break;
        case METHODID_LIST_MODELS:
          serviceImpl.listModels((servegrpc.v1.ListModelsRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.ListModelsResponse>) responseObserver);
          break;
        case METHODID_SCALE_MODEL:
          serviceImpl.scaleModel((servegrpc.v1.ScaleModelRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.ScaleModelResponse>) responseObserver);
          break;
        case METHODID_SET_DEFAULT_VERSION:
          serviceImpl.setDefaultVersion((servegrpc.v1.SetDefaultVersionRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.SetDefaultVersionResponse>) responseObserver);
          break;
        case METHODID_WATCH_MODELS:
          serviceImpl.watchModels((servegrpc.v1.WatchModelsRequest) request,
              (io.grpc.stub.StreamObserver<servegrpc.v1.WatchModelsResponse>) responseObserver);
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
        default:
          throw new AssertionError();
      }
    }
  }

  private static abstract class ManagementServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    ManagementServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return servegrpc.v1.ManagementProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("ManagementService");
    }
  }

  private static final class ManagementServiceFileDescriptorSupplier
      extends ManagementServiceBaseDescriptorSupplier {
    ManagementServiceFileDescriptorSupplier() {}
  }

  private static final class ManagementServiceMethodDescriptorSupplier
      extends ManagementServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final String methodName;

    ManagementServiceMethodDescriptorSupplier(String methodName) {
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
      synchronized (ManagementServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new ManagementServiceFileDescriptorSupplier())
              .addMethod(getRegisterModelMethod())
              .addMethod(getUnregisterModelMethod())
              .addMethod(getGetModelMethod())
              .addMethod(getListModelsMethod())
              .addMethod(getScaleModelMethod())
              .addMethod(getSetDefaultVersionMethod())
              .addMethod(getWatchModelsMethod())
              .build();
        }
      }
    }
    return result;
  }
}
