// Reads handwritten digits with grpc-js and the proto files alone, without stubs: node dynamic.mjs ADDRESS MANAGEMENT [PICTURE].

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const SAMPLE = "examples/digits/samples/seven.png"; // from the repository's root
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FILES = ["inference", "management"].map((name) => `servegrpc/v1/${name}.proto`);
const OTHER_FILES = ["grpc/health/v1/health.proto", "google/rpc/status.proto"];
// Names as in the files, int64 as text, enums by name, unset fields with their defaults; maps and oneofs as plain objects.
const definition = protoLoader.loadSync([...FILES, ...OTHER_FILES], {
  includeDirs: [`${ROOT}/protos`, `${ROOT}/clients/protos`],
  keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
});
const api = grpc.loadPackageDefinition(definition);
const OPTIONS = { "grpc.max_receive_message_length": 64 * 1024 * 1024 }; // 4 MiB unless told

const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });

/** Makes a unary call and returns its reply; the error is thrown. */
function call(client, method, request, milliseconds = 10_000) {
  return new Promise((resolve, reject) => {
    client[method](request, within(milliseconds), (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

/** Runs a call that must fail and returns its error. */
async function errorOf(promise) {
  const error = await promise.then(() => undefined, (reason) => reason);
  if (error?.code === undefined) throw new Error(`expected an error of the call, not ${error}`);
  return error;
}

/** Returns the reason in the error's details, a name of servegrpc.v1.ErrorReason. */
function reasonOf(error) {
  const [raw] = error.metadata.get("grpc-status-details-bin");
  const { details } = definition["google.rpc.Status"].deserialize(raw);
  const errorInfo = details.find((detail) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  return definition["google.rpc.ErrorInfo"].deserialize(errorInfo.value).reason;
}

/** Returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour. */
function bar() {
  const data = Buffer.alloc(4 * 64);
  for (let row = 0; row < 8; row++) {
    data.writeFloatLE(1, 4 * (8 * row + 3));
    data.writeFloatLE(1, 4 * (8 * row + 4));
  }
  return { tensor: { data_type: "DATA_TYPE_FP32", shape: [1, 8, 8], data } };
}

function show(step, reply) {
  const { digit, name } = reply.output.json.structValue.fields;
  console.log(`${step}: digit ${digit.numberValue}, ${name.stringValue}, by ${reply.model_name} ${reply.model_version}`);
}

async function main(address, management, picture = SAMPLE) {
  const insecure = grpc.credentials.createInsecure();
  const health = new api.grpc.health.v1.Health(address, insecure);
  const inference = new api.servegrpc.v1.InferenceService(address, insecure, OPTIONS);
  const models = new api.servegrpc.v1.ManagementService(management, insecure);

  console.log("server:", (await call(health, "Check", {})).status);

  const listed = await call(models, "ListModels", {});
  console.log("models:", listed.models.map((model) => model.name).join(", "));

  const binary = { binary: readFileSync(picture) };
  show("picture", await call(inference, "Predict", { model_name: "digits", inputs: { data: binary } }));

  show("tensor", await call(inference, "Predict", { model_name: "digits", inputs: { data: bar() } }));

  const stream = inference.PredictStream({ model_name: "digits", inputs: { data: binary } }, within(10_000));
  for await (const part of stream) show("stream", part);

  const session = inference.PredictSession(within(10_000));
  session.write({ model_name: "digits", inputs: { data: binary } });
  session.write({ inputs: { data: bar() } });
  session.end();
  for await (const reply of session) show("session", reply);

  const watch = models.WatchModels({}, within(200)).resume(); // goes on until its deadline
  const [expired] = await once(watch, "error");
  console.log("deadline:", grpc.status[expired.code]);

  const unknown = await errorOf(call(inference, "Predict", { model_name: "no-such-model", inputs: { data: binary } }));
  console.log("no-such-model:", grpc.status[unknown.code], reasonOf(unknown));

  const { archive } = listed.models.find((model) => model.name === "digits").versions[0];
  const registered = await call(models, "RegisterModel", { archive, model_name: "digits-javascript" }, 60_000);
  console.log("registered:", registered.model.name, registered.model_version);
  await call(models, "UnregisterModel", { model_name: "digits-javascript" }, 60_000);
  console.log("unregistered: digits-javascript");

  for (const client of [health, inference, models]) client.close();
  console.log("javascript OK");
}

const [address, management, picture] = process.argv.slice(2);
if (!address || !management) {
  console.error("usage: node dynamic.mjs ADDRESS MANAGEMENT [PICTURE]");
  process.exit(2);
}
await main(address, management, picture);
