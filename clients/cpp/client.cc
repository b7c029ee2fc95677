// Reads handwritten digits through stubs made at build time: client ADDRESS MANAGEMENT [PICTURE].

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "servegrpc/v1/inference.grpc.pb.h"
#include "servegrpc/v1/management.grpc.pb.h"

namespace v1 = servegrpc::v1;
namespace health = grpc::health::v1;

const char* const kSample = "examples/digits/samples/seven.png";  // from the repository's root
constexpr int kMaxMessageBytes = 64 << 20;                        // 4 MiB unless told

// What every call has: a context of its own, with a deadline.
struct Deadline : grpc::ClientContext {
  explicit Deadline(std::chrono::milliseconds time) { set_deadline(std::chrono::system_clock::now() + time); }
};
constexpr std::chrono::seconds kSoon(10), kLater(60);

// Returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour.
v1::Value Bar() {
  float pixels[8][8] = {};
  for (auto& row : pixels) row[3] = row[4] = 1;
  v1::Value value;
  v1::Tensor& tensor = *value.mutable_tensor();
  tensor.set_data_type(v1::DATA_TYPE_FP32);
  for (int size : {1, 8, 8}) tensor.add_shape(size);
  tensor.set_data(pixels, sizeof pixels);  // on a little-endian machine
  return value;
}

v1::Value Picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  v1::Value value;
  value.mutable_binary()->assign(std::istreambuf_iterator<char>(file), {});
  return value;
}

template <typename Request>
Request Ask(const std::string& model, const v1::Value& value) {
  Request request;
  request.set_model_name(model);
  (*request.mutable_inputs())["data"] = value;
  return request;
}

template <typename Reply>
void Show(const std::string& step, const Reply& reply) {
  const auto& fields = reply.output().json().struct_value().fields();
  std::cout << step << ": digit " << fields.at("digit").number_value() << ", " << fields.at("name").string_value() << ", by "
            << reply.model_name() << " " << reply.model_version() << std::endl;
}

// Returns a code's name as gRPC writes it, which the library does not have.
std::string CodeName(const grpc::Status& status) {
  static const char* const kNames[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
                                       "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
                                       "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return kNames[status.error_code()];
}

void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(CodeName(status) + ": " + status.error_message());
}

// Ends the program unless the call failed.
void CheckFailed(const grpc::Status& status) {
  if (status.ok()) throw std::runtime_error("expected an error of the call");
}

// Returns the reason in the error's details, a name of servegrpc.v1.ErrorReason.
std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

void Predict(v1::InferenceService::Stub& inference, const std::string& step, const v1::Value& value) {
  Deadline deadline(kSoon);
  v1::PredictResponse reply;
  Check(inference.Predict(&deadline, Ask<v1::PredictRequest>("digits", value), &reply));
  Show(step, reply);
}

void Stream(v1::InferenceService::Stub& inference, const v1::Value& picture) {
  Deadline deadline(kSoon);
  v1::PredictStreamResponse part;
  auto parts = inference.PredictStream(&deadline, Ask<v1::PredictStreamRequest>("digits", picture));
  while (parts->Read(&part)) Show("stream", part);
  Check(parts->Finish());
}

void Session(v1::InferenceService::Stub& inference, const v1::Value& picture) {
  Deadline deadline(kSoon);
  v1::PredictSessionResponse reply;
  auto session = inference.PredictSession(&deadline);
  session->Write(Ask<v1::PredictSessionRequest>("digits", picture));
  session->Write(Ask<v1::PredictSessionRequest>("", Bar()));  // of the first one's model
  session->WritesDone();
  while (session->Read(&reply)) Show("session", reply);
  Check(session->Finish());
}

v1::ListModelsResponse List(v1::ManagementService::Stub& models) {
  Deadline deadline(kSoon);
  v1::ListModelsResponse listed;
  Check(models.ListModels(&deadline, {}, &listed));
  std::cout << "models: ";
  const char* separator = "";
  for (const auto& model : listed.models()) std::cout << std::exchange(separator, ", ") << model.name();
  std::cout << std::endl;
  return listed;
}

// Watching goes on until its deadline.
void Watch(v1::ManagementService::Stub& models) {
  Deadline deadline(std::chrono::milliseconds(200));
  v1::WatchModelsResponse change;
  auto changes = models.WatchModels(&deadline, {});
  while (changes->Read(&change)) continue;
  const grpc::Status expired = changes->Finish();
  CheckFailed(expired);
  std::cout << "deadline: " << CodeName(expired) << std::endl;
}

void RegisterAndUnregister(v1::ManagementService::Stub& models, const v1::ListModelsResponse& listed) {
  v1::RegisterModelRequest request;
  for (const auto& model : listed.models())
    if (model.name() == "digits") request.set_archive(model.versions(0).archive());
  request.set_model_name("digits-cpp");
  v1::RegisterModelResponse registered;
  Deadline registering(kLater);
  Check(models.RegisterModel(&registering, request, &registered));
  std::cout << "registered: " << registered.model().name() << " " << registered.model_version() << std::endl;

  v1::UnregisterModelRequest removal;
  removal.set_model_name("digits-cpp");
  v1::UnregisterModelResponse removed;
  Deadline unregistering(kLater);
  Check(models.UnregisterModel(&unregistering, removal, &removed));
  std::cout << "unregistered: digits-cpp" << std::endl;
}

void Walk(const std::string& address, const std::string& management_address, const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  auto management = grpc::CreateCustomChannel(management_address, grpc::InsecureChannelCredentials(), arguments);
  v1::InferenceService::Stub inference(channel);
  v1::ManagementService::Stub models(management);

  Deadline checking(kSoon);
  health::HealthCheckResponse state;
  Check(health::Health::Stub(channel).Check(&checking, {}, &state));
  std::cout << "server: " << health::HealthCheckResponse::ServingStatus_Name(state.status()) << std::endl;

  const v1::ListModelsResponse listed = List(models);

  const v1::Value picture = Picture(path);
  Predict(inference, "picture", picture);

  Predict(inference, "tensor", Bar());

  Stream(inference, picture);

  Session(inference, picture);

  Watch(models);

  Deadline asking(kSoon);
  v1::PredictResponse reply;
  const grpc::Status unknown = inference.Predict(&asking, Ask<v1::PredictRequest>("no-such-model", picture), &reply);
  CheckFailed(unknown);
  std::cout << "no-such-model: " << CodeName(unknown) << " " << ReasonOf(unknown) << std::endl;

  RegisterAndUnregister(models, listed);
}

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: client ADDRESS MANAGEMENT [PICTURE]" << std::endl;
    return 2;
  }
  try {
    Walk(arguments[1], arguments[2], count > 3 ? arguments[3] : kSample);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  std::cout << "cpp OK" << std::endl;
}
