# Reads handwritten digits through the generated stubs: ruby -Iclients/ruby/lib clients/ruby/client.rb ADDRESS MANAGEMENT [PICTURE].

require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'grpc'
require 'grpc/health/v1/health_services_pb'
require 'servegrpc/v1/inference_services_pb'
require 'servegrpc/v1/management_services_pb'

include Servegrpc::V1

SAMPLE = File.expand_path('../../examples/digits/samples/seven.png', __dir__)
# gRPC takes replies of 4 MiB by default; tensors are soon larger.
OPTIONS = { 'grpc.max_receive_message_length' => 64 * 1024 * 1024 }.freeze

# Returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour.
def bar
  row = [0, 0, 0, 1, 1, 0, 0, 0]
  Value.new(tensor: Tensor.new(data_type: :DATA_TYPE_FP32, shape: [1, 8, 8], data: (row * 8).pack('e*'))) # e: little-endian
end

def show(step, reply)
  fields = reply.output.json.struct_value.fields
  digit, name = fields['digit'].number_value, fields['name'].string_value
  puts "#{step}: digit #{digit.to_i}, #{name}, by #{reply.model_name} #{reply.model_version}"
end

# Runs a call that must fail and returns its error.
def error_of
  yield
rescue GRPC::BadStatus => e
  e
else
  abort 'expected an error of the call'
end

# Returns a code's name as gRPC writes it.
def code_name(error)
  GRPC::Core::StatusCodes.constants.find { |name| GRPC::Core::StatusCodes.const_get(name) == error.code }
end

# Returns the reason in the error's details, a name of servegrpc.v1.ErrorReason.
def reason_of(error)
  status = Google::Rpc::Status.decode(error.metadata['grpc-status-details-bin'])
  detail = status.details.find { |any| any.is(Google::Rpc::ErrorInfo) }
  detail ? detail.unpack(Google::Rpc::ErrorInfo).reason : ''
end

def within(seconds)
  { deadline: Time.now + seconds }
end

address, management, path = ARGV
abort 'usage: ruby -Iclients/ruby/lib client.rb ADDRESS MANAGEMENT [PICTURE]' unless management
health = Grpc::Health::V1::Health::Stub.new(address, :this_channel_is_insecure)
inference = InferenceService::Stub.new(address, :this_channel_is_insecure, channel_args: OPTIONS)
models = ManagementService::Stub.new(management, :this_channel_is_insecure)

puts "server: #{health.check(Grpc::Health::V1::HealthCheckRequest.new, **within(10)).status}"

listed = models.list_models(ListModelsRequest.new, **within(10)).models
puts "models: #{listed.map(&:name).join(', ')}"

picture = Value.new(binary: File.binread(path || SAMPLE))
show 'picture', inference.predict(PredictRequest.new(model_name: 'digits', inputs: { 'data' => picture }), **within(10))

show 'tensor', inference.predict(PredictRequest.new(model_name: 'digits', inputs: { 'data' => bar }), **within(10))

request = PredictStreamRequest.new(model_name: 'digits', inputs: { 'data' => picture })
inference.predict_stream(request, **within(10)).each { |part| show 'stream', part }

first = PredictSessionRequest.new(model_name: 'digits', inputs: { 'data' => picture })
second = PredictSessionRequest.new(inputs: { 'data' => bar })
inference.predict_session([first, second], **within(10)).each { |reply| show 'session', reply }

expired = error_of { models.watch_models(WatchModelsRequest.new, **within(0.2)).each {} } # goes on until its deadline
puts "deadline: #{code_name(expired)}"

unknown = error_of { inference.predict(PredictRequest.new(model_name: 'no-such-model', inputs: { 'data' => picture }), **within(10)) }
puts "no-such-model: #{code_name(unknown)} #{reason_of(unknown)}"

archive = listed.find { |model| model.name == 'digits' }.versions.first.archive
registered = models.register_model(RegisterModelRequest.new(archive: archive, model_name: 'digits-ruby'), **within(60))
puts "registered: #{registered.model.name} #{registered.model_version}"
models.unregister_model(UnregisterModelRequest.new(model_name: 'digits-ruby'), **within(60))
puts 'unregistered: digits-ruby'

puts 'ruby OK'
