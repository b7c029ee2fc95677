import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Struct;
import google.rpc.ErrorInfo;
import grpc.health.v1.HealthCheckRequest;
import grpc.health.v1.HealthGrpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.StreamObserver;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import servegrpc.v1.DataType;
import servegrpc.v1.InferenceServiceGrpc;
import servegrpc.v1.ListModelsRequest;
import servegrpc.v1.ListModelsResponse;
import servegrpc.v1.ManagementServiceGrpc;
import servegrpc.v1.PredictRequest;
import servegrpc.v1.PredictResponse;
import servegrpc.v1.PredictSessionRequest;
import servegrpc.v1.PredictSessionResponse;
import servegrpc.v1.PredictStreamRequest;
import servegrpc.v1.RegisterModelRequest;
import servegrpc.v1.RegisterModelResponse;
import servegrpc.v1.Tensor;
import servegrpc.v1.UnregisterModelRequest;
import servegrpc.v1.Value;
import servegrpc.v1.WatchModelsRequest;

/** Reads handwritten digits through the generated stubs: Client ADDRESS MANAGEMENT [PICTURE]. */
public final class Client {
  private static final String SAMPLE = "examples/digits/samples/seven.png"; // from the repository's root
  private static final int MAX_MESSAGE_BYTES = 64 << 20; // 4 MiB unless told
  private static final Metadata.Key<google.rpc.Status> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", ProtoUtils.metadataMarshaller(google.rpc.Status.getDefaultInstance()));

  /** Returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour. */
  private static Value bar() {
    ByteBuffer pixels = ByteBuffer.allocate(4 * 64).order(ByteOrder.LITTLE_ENDIAN);
    for (int row = 0; row < 8; row++) {
      pixels.putFloat(4 * (8 * row + 3), 1).putFloat(4 * (8 * row + 4), 1);
    }
    Tensor.Builder tensor = Tensor.newBuilder().setDataType(DataType.DATA_TYPE_FP32).addShape(1).addShape(8).addShape(8);
    return Value.newBuilder().setTensor(tensor.setData(ByteString.copyFrom(pixels))).build();
  }

  private static void show(String step, Value output, String model, String version) {
    Struct result = output.getJson().getStructValue();
    double digit = result.getFieldsOrThrow("digit").getNumberValue();
    String name = result.getFieldsOrThrow("name").getStringValue();
    System.out.printf("%s: digit %.0f, %s, by %s %s%n", step, digit, name, model, version);
  }

  private static void show(String step, PredictResponse reply) {
    show(step, reply.getOutput(), reply.getModelName(), reply.getModelVersion());
  }

  /** Runs a call that must fail and returns its error. */
  private static StatusRuntimeException errorOf(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("expected an error of the call");
  }

  /** Returns the reason in the error's details, a name of servegrpc.v1.ErrorReason. */
  private static String reasonOf(StatusRuntimeException error) throws Exception {
    for (Any detail : error.getTrailers().get(DETAILS).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return detail.unpack(ErrorInfo.class).getReason();
      }
    }
    return "";
  }

  /** Sends two requests over one session and shows their replies; the second is of the first one's model. */
  private static void session(ManagedChannel channel, Value picture) throws Exception {
    CompletableFuture<Void> ended = new CompletableFuture<>();
    StreamObserver<PredictSessionRequest> requests =
        InferenceServiceGrpc.newStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS).predictSession(new StreamObserver<>() {
          @Override
          public void onNext(PredictSessionResponse reply) {
            show("session", reply.getOutput(), reply.getModelName(), reply.getModelVersion());
          }

          @Override
          public void onError(Throwable error) {
            ended.completeExceptionally(error);
          }

          @Override
          public void onCompleted() {
            ended.complete(null);
          }
        });
    requests.onNext(PredictSessionRequest.newBuilder().setModelName("digits").putInputs("data", picture).build());
    requests.onNext(PredictSessionRequest.newBuilder().putInputs("data", bar()).build());
    requests.onCompleted();
    ended.get();
  }

  private static String archiveOf(ListModelsResponse models, String name) {
    var found = models.getModelsList().stream().filter(model -> model.getName().equals(name)).findFirst();
    return found.orElseThrow().getVersions(0).getArchive();
  }

  private static void walk(ManagedChannel channel, ManagedChannel management, String path) throws Exception {
    // A deadline runs from here on, so a program that stays makes a stub of its own for each call.
    var inference = InferenceServiceGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
    var models = ManagementServiceGrpc.newBlockingStub(management).withDeadlineAfter(60, TimeUnit.SECONDS);

    var health = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
    System.out.println("server: " + health.check(HealthCheckRequest.getDefaultInstance()).getStatus());

    ListModelsResponse listed = models.listModels(ListModelsRequest.getDefaultInstance());
    System.out.println("models: " + listed.getModelsList().stream().map(model -> model.getName()).collect(Collectors.joining(", ")));

    Value picture = Value.newBuilder().setBinary(ByteString.copyFrom(Files.readAllBytes(Path.of(path)))).build();
    show("picture", inference.predict(PredictRequest.newBuilder().setModelName("digits").putInputs("data", picture).build()));

    show("tensor", inference.predict(PredictRequest.newBuilder().setModelName("digits").putInputs("data", bar()).build()));

    inference
        .predictStream(PredictStreamRequest.newBuilder().setModelName("digits").putInputs("data", picture).build())
        .forEachRemaining(part -> show("stream", part.getOutput(), part.getModelName(), part.getModelVersion()));

    session(channel, picture);

    var watch = models.withDeadlineAfter(200, TimeUnit.MILLISECONDS); // goes on until its deadline
    var expired = errorOf(() -> watch.watchModels(WatchModelsRequest.getDefaultInstance()).forEachRemaining(change -> {}));
    System.out.println("deadline: " + expired.getStatus().getCode());

    PredictRequest request = PredictRequest.newBuilder().setModelName("no-such-model").putInputs("data", picture).build();
    var unknown = errorOf(() -> inference.predict(request));
    System.out.println("no-such-model: " + unknown.getStatus().getCode() + " " + reasonOf(unknown));

    var registration = RegisterModelRequest.newBuilder().setArchive(archiveOf(listed, "digits")).setModelName("digits-java");
    RegisterModelResponse registered = models.registerModel(registration.build());
    System.out.println("registered: " + registered.getModel().getName() + " " + registered.getModelVersion());
    models.unregisterModel(UnregisterModelRequest.newBuilder().setModelName("digits-java").build());
    System.out.println("unregistered: digits-java");
  }

  private static ManagedChannel connect(String address) {
    return ManagedChannelBuilder.forTarget(address).usePlaintext().maxInboundMessageSize(MAX_MESSAGE_BYTES).build();
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2) {
      System.err.println("usage: Client ADDRESS MANAGEMENT [PICTURE]");
      System.exit(2);
    }
    ManagedChannel channel = connect(arguments[0]);
    ManagedChannel management = connect(arguments[1]);
    try {
      walk(channel, management, arguments.length > 2 ? arguments[2] : SAMPLE);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
      management.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
    System.out.println("java OK");
  }
}
