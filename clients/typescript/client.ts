// Reads handwritten digits through the generated stubs and connect-node: node dist/client.js ADDRESS MANAGEMENT [PICTURE].

import { readFileSync } from "node:fs";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "./gen/google/rpc/status_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "./gen/grpc/health/v1/health_pb.js";
import { InferenceService, PredictSessionRequestSchema, type PredictResponse } from "./gen/servegrpc/v1/inference_pb.js";
import { ManagementService } from "./gen/servegrpc/v1/management_pb.js";
import { DataType, TensorSchema, type ValueSchema } from "./gen/servegrpc/v1/value_pb.js";

type Value = MessageInitShape<typeof ValueSchema>;
type Reply = Pick<PredictResponse, "output" | "modelName" | "modelVersion">;

const SAMPLE = "examples/digits/samples/seven.png"; // from the repository's root

/** Returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour. */
function bar(): Value {
  const pixels = new DataView(new ArrayBuffer(4 * 64));
  for (let row = 0; row < 8; row++) {
    pixels.setFloat32(4 * (8 * row + 3), 1, true); // little-endian on any machine
    pixels.setFloat32(4 * (8 * row + 4), 1, true);
  }
  const tensor = create(TensorSchema, { dataType: DataType.FP32, shape: [1n, 8n, 8n], data: new Uint8Array(pixels.buffer) });
  return { kind: { case: "tensor", value: tensor } };
}

function show(step: string, reply: Reply): void {
  const json = reply.output?.kind.case === "json" ? reply.output.kind.value : undefined;
  const { digit, name } = json?.kind.case === "structValue" ? json.kind.value.fields : {};
  console.log(`${step}: digit ${digit?.kind.value}, ${name?.kind.value}, by ${reply.modelName} ${reply.modelVersion}`);
}

/** Runs a call that must fail and returns its error. */
async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  const error: unknown = await call.then(() => undefined, (reason: unknown) => reason);
  if (!(error instanceof ConnectError)) throw new Error(`expected an error of the call, not ${String(error)}`);
  return error;
}

/** Returns a code's name as gRPC writes it: NOT_FOUND for Code.NotFound. */
function codeName(error: ConnectError): string {
  return Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

async function main(address: string, management: string, picture = SAMPLE): Promise<void> {
  // connect-node waits for large messages without being told to, and for each call as long as its timeoutMs says.
  const transport = createGrpcTransport({ baseUrl: `http://${address}`, defaultTimeoutMs: 10_000 });
  const inference = createClient(InferenceService, transport);
  const models = createClient(ManagementService, createGrpcTransport({ baseUrl: `http://${management}` }));

  const { status } = await createClient(Health, transport).check({});
  console.log("server:", HealthCheckResponse_ServingStatus[status]);

  const listed = await models.listModels({}, { timeoutMs: 10_000 });
  console.log("models:", listed.models.map((model) => model.name).join(", "));

  const binary: Value = { kind: { case: "binary", value: readFileSync(picture) } };
  show("picture", await inference.predict({ modelName: "digits", inputs: { data: binary } }));

  show("tensor", await inference.predict({ modelName: "digits", inputs: { data: bar() } }));

  for await (const part of inference.predictStream({ modelName: "digits", inputs: { data: binary } })) show("stream", part);

  async function* requests() {
    yield create(PredictSessionRequestSchema, { modelName: "digits", inputs: { data: binary } });
    yield create(PredictSessionRequestSchema, { inputs: { data: bar() } });
  }
  for await (const reply of inference.predictSession(requests())) show("session", reply);

  async function watch() {
    for await (const change of models.watchModels({}, { timeoutMs: 200 })) void change; // goes on until its deadline
  }
  console.log("deadline:", codeName(await errorOf(watch())));

  const unknown = await errorOf(inference.predict({ modelName: "no-such-model", inputs: { data: binary } }));
  console.log("no-such-model:", codeName(unknown), unknown.findDetails(ErrorInfoSchema)[0]?.reason);

  const archive = listed.models.find((model) => model.name === "digits")?.versions[0]?.archive;
  const registered = await models.registerModel({ archive, modelName: "digits-typescript" }, { timeoutMs: 60_000 });
  console.log("registered:", registered.model?.name, registered.modelVersion);
  await models.unregisterModel({ modelName: "digits-typescript" }, { timeoutMs: 60_000 });
  console.log("unregistered: digits-typescript");

  console.log("typescript OK");
}

const [address, management, picture] = process.argv.slice(2);
if (!address || !management) {
  console.error("usage: node dist/client.js ADDRESS MANAGEMENT [PICTURE]");
  process.exit(2);
}
await main(address, management, picture);
