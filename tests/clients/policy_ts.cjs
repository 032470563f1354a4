"use strict";
// Two TypeScript SDKs, told what to do: commands on standard input, answers on standard output, one JSON line each.
//
//   node policy_ts.cjs DIRECTORY     where node_modules with both SDKs is
//
// A line in is {"do", ...}: open (url, headers, client: "ts1" | "ts2 legacy" | "ts2 auto"), then tools, call
// (tool, arguments), prompt (name), read (uri), roots, close. A line out is {"did"}; {"failed": {kind, code, message}}
// where the SDK threw. A URL that ends in /sse is spoken to in 2024-11-05.

const { createRequire } = require("node:module");
const { join } = require("node:path");
const { createInterface } = require("node:readline");

const load = createRequire(join(process.argv[2], "package.json"));
const ME = { name: "policy", version: "1" };
const CAPABILITIES = { roots: { listChanged: true } };
const ANSWER_MS = 8000;

async function open({ url, headers, client }) {
  const options = { requestInit: { headers } };
  let sdk, made;
  if (client === "ts1") {
    sdk = {
      ...load("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      ...load("@modelcontextprotocol/sdk/client/sse.js"),
    };
    made = new (load("@modelcontextprotocol/sdk/client/index.js").Client)(ME, { capabilities: CAPABILITIES });
  } else {
    sdk = load("@modelcontextprotocol/client");
    const era = client === "ts2 auto" ? { versionNegotiation: { mode: "auto" } } : {};
    made = new sdk.Client(ME, { capabilities: CAPABILITIES, ...era });
  }
  made.onerror = () => {}; // what matters is thrown, or asked for, as well
  const Transport = url.endsWith("/sse") ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;
  const transport = new Transport(new URL(url), options);
  await made.connect(transport);
  // The first SDK tells the revision to its transport only.
  const speaks = client === "ts1" ? transport.protocolVersion : made.getNegotiatedProtocolVersion();
  return { made, speaks: speaks ?? null };
}

async function follow(made, command) {
  const options = { timeout: ANSWER_MS };
  switch (command.do) {
    case "tools":
      return (await made.listTools({}, options)).tools;
    case "call": {
      const params = { name: command.tool, arguments: command.arguments };
      // Between the two is where the first SDK takes another schema for the result.
      const result = await made.callTool(params, ...(made.getNegotiatedProtocolVersion ? [options] : [undefined, options]));
      return { content: result.content, isError: result.isError ?? false, meta: result._meta ?? {} };
    }
    case "prompt":
      return (await made.getPrompt({ name: command.name }, options)).messages[0].content.text;
    case "read":
      return (await made.readResource({ uri: command.uri }, options)).contents[0].text;
    case "roots":
      await made.sendRootsListChanged();
      return null;
    default:
      throw new Error(`unknown: ${command.do}`);
  }
}

function failed(error) {
  return { kind: error.constructor.name, code: error.code ?? null, message: String(error.message) };
}

async function main() {
  let connection = null;
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
      if (command.do === "open") {
        connection = await open(command);
        say({ did: connection.speaks });
      } else if (command.do === "close") {
        await connection?.made.close();
        connection = null;
        say({ did: null });
      } else {
        say({ did: await follow(connection.made, command) });
      }
    } catch (error) {
      say({ failed: failed(error) });
    }
  }
}

main();
