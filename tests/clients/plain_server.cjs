"use strict";
// A server of the TypeScript SDK as its examples are: sessions in memory, no event store. Gone when the process is.
//
//   node plain_server.cjs DIRECTORY PORT     where node_modules with the SDK is
//
// Its one tool tells the process that answers.

const { createRequire } = require("node:module");
const { createServer } = require("node:http");
const { randomUUID } = require("node:crypto");
const { join } = require("node:path");

const load = createRequire(join(process.argv[2], "package.json"));
const { McpServer } = load("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = load("@modelcontextprotocol/sdk/server/streamableHttp.js");

const sessions = new Map();

async function begun() {
  const server = new McpServer({ name: "plain", version: "1" });
  server.registerTool("who", {}, () => ({ content: [{ type: "text", text: String(process.pid) }] }));
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  await server.connect(transport);
  return transport;
}

// As simpleStreamableHttp.js of the SDK answers for a session that it does not have.
function unknown(response) {
  const error = { code: -32001, message: "Session not found" };
  response.writeHead(404, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
}

const http = createServer(async (request, response) => {
  const id = request.headers["mcp-session-id"];
  if (id !== undefined && !sessions.has(id)) return unknown(response);
  const transport = id === undefined ? await begun() : sessions.get(id);
  await transport.handleRequest(request, response);
});
http.listen(Number(process.argv[3]), "127.0.0.1", () => console.log("ready"));
process.on("SIGTERM", () => process.exit(0));
