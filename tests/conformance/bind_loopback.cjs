"use strict";
// Preloaded into the suite: its mock servers call listen(port) without a host, which binds every interface.
// Here they get 127.0.0.1. The hook is where Node binds, not `listen` itself: with a host that one resolves a
// name first, and the suite reads address() in the same turn.
const { Server } = require("node:net");

const EVERYWHERE = new Set([null, undefined, "", "::", "0.0.0.0"]);
const bind = Server.prototype._listen2;

Server.prototype._listen2 = function (address, port, family, ...rest) {
  const fd = rest[1];
  const isPort = typeof port === "number" && port >= 0 && !(typeof fd === "number" && fd >= 0);
  return isPort && EVERYWHERE.has(address)
    ? bind.call(this, "127.0.0.1", port, 4, ...rest)
    : bind.call(this, address, port, family, ...rest);
};
