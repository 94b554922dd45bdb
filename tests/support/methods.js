// Requests whose targets are not paths, by Node's http2: OPTIONS for the whole server, CONNECT, and an ordinary one after.
//
//     node methods.js URL CA-FILE
//
// All go over one connection. What came of each is written as JSON: its status, and its body.
"use strict";
const fs = require("fs");
const http2 = require("http2");

const [url, ca] = process.argv.slice(2);
const REQUESTS = [
  { ":method": "OPTIONS", ":path": "*" },
  { ":method": "CONNECT", ":authority": "localhost:22" },
  { ":method": "GET", ":path": "/hello" },
];

function ask(session, headers) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers);
    let status = null, body = "";
    stream.setEncoding("utf8");
    stream.on("response", (fields) => { status = fields[":status"]; });
    stream.on("data", (piece) => { body += piece; });
    stream.on("error", reject);
    stream.on("close", () => resolve([status, body]));
    stream.end();
  });
}

async function main() {
  const session = http2.connect(url, url.startsWith("https") ? { ca: fs.readFileSync(ca), servername: "localhost" } : {});
  const seen = [];
  for (const headers of REQUESTS) seen.push(await ask(session, headers));
  session.close();
  console.log(JSON.stringify(seen));
}

main();
