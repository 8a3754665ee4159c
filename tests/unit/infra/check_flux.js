// Reads [{name, source}] from stdin, writes [{name, errors: [text]}]: syntax and types of Flux.
"use strict";
const path = require("path");
const { Lsp } = require(path.join(process.argv[2], "node_modules/@influxdata/flux-lsp-node"));

async function main() {
  const queries = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const server = new Lsp();
  const diagnostics = new Map();
  server.onMessage((text) => {
    const message = JSON.parse(text);
    if (message.method !== "textDocument/publishDiagnostics") return;
    diagnostics.set(message.params.uri, message.params.diagnostics);
  });
  server.run();
  const send = (message) => server.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
  await send({ id: 1, method: "initialize", params: { capabilities: {} } });
  await send({ method: "initialized", params: {} });
  const results = [];
  for (const [i, query] of queries.entries()) {
    // A folder each: files side by side are one package and share their names.
    const uri = `file:///${i}/query.flux`;
    const document = { uri, languageId: "flux", version: 1, text: query.source };
    await send({ method: "textDocument/didOpen", params: { textDocument: document } });
    for (let n = 0; n < 50 && !diagnostics.has(uri); n++) await new Promise((r) => setImmediate(r));
    const found = diagnostics.get(uri);
    // No answer would otherwise look like no error.
    const errors = found === undefined ? ["not checked"] : found
      .filter((d) => (d.severity ?? 1) === 1)
      .map((d) => `${d.range.start.line + 1}: ${d.message}`);
    results.push({ name: query.name, errors });
  }
  process.stdout.write(JSON.stringify(results));
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
