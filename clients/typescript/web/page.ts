// Classifies a picture from the browser, by gRPC-Web. Bundled into dist/page.js by `npm run build`.

import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { InferenceService } from "../gen/servegrpc/v1/inference_pb.js";

const output = document.querySelector("output")!;
const preview = document.querySelector("img")!;
const parameters = new URLSearchParams(location.search);
const baseUrl = parameters.get("proxy") ?? "http://127.0.0.1:8080"; // where Envoy listens; see envoy.yaml
const inference = createClient(InferenceService, createGrpcWebTransport({ baseUrl, defaultTimeoutMs: 10_000 }));

async function classify(picture: Blob): Promise<void> {
  const value = new Uint8Array(await picture.arrayBuffer());
  try {
    const reply = await inference.predict({ modelName: "digits", inputs: { data: { kind: { case: "binary", value } } } });
    const json = reply.output?.kind.case === "json" ? reply.output.kind.value : undefined;
    const { digit, name } = json?.kind.case === "structValue" ? json.kind.value.fields : {};
    output.textContent = `digit ${digit?.kind.value}, ${name?.kind.value}, by ${reply.modelName} ${reply.modelVersion}`;
  } catch (error) {
    const failed = ConnectError.from(error);
    const unreachable = failed.cause instanceof TypeError; // of fetch: nothing answered
    output.textContent = unreachable ? `No answer from ${baseUrl}. Does Envoy run there? See envoy.yaml.` : failed.message;
  }
}

document.querySelector("input")!.addEventListener("change", ({ target }) => {
  const picture = (target as HTMLInputElement).files?.[0];
  if (!picture) return;
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(picture);
  preview.hidden = false;
  void classify(picture);
});
