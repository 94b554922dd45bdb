// A client on Node's http2 that obeys GOAWAY, and accounts for every request it has made.
//
//     node graceful_client.js URL CA-FILE CHAINS [PREFIX [SOCKET]]
//
// There are several chains, each of one request after another: small ones, slow uploads, or event streams; PREFIX stands
// before each path. SOCKET is a Unix socket to connect to instead of the URL's host. A line of input has numbers of requests; when as many have been answered, or one is lost, what was
// seen so far is written as JSON. So it is at the end of the input, when each chain has come to the end of its present
// request. A request that the server says it has not processed (REFUSED_STREAM) is made again, on a new connection; any
// other that does not end well is lost.
"use strict";
const fs = require("fs");
const http2 = require("http2");
const net = require("net");

const [url, ca, chains, prefix = "", path = ""] = process.argv.slice(2);
const options = path ? { createConnection: () => net.connect(path) }
                     : { ca: fs.readFileSync(ca), servername: "localhost" };
const PIECES = 10, PIECE = Buffer.alloc(20_000, "x"), PAUSE = 15, EVENTS = 20;
const seen = { hello: 0, upload: 0, events: 0, retried: 0, sessions: 0, lost: [] };
let session = null, stopping = false, goals = [];

function connection() {
  if (session && !session.closed && !session.destroyed) return session;
  const opened = http2.connect(url, options);
  seen.sessions++;
  opened.on("error", (error) => { if (session === opened) session = null; opened.failure = error; });
  opened.on("goaway", () => { if (session === opened) session = null; });
  opened.on("close", () => { if (session === opened) session = null; });
  session = opened;
  return opened;
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function send(stream) {
  for (let number = 0; number < PIECES; number++) {
    if (stream.destroyed || stream.closed) return;
    stream.write(PIECE);
    await pause(PAUSE);
  }
  stream.end();
}

const KINDS = {
  hello: { path: "/hello", body: (text) => text === "Hello, world!\n" },
  upload: { path: "/count", method: "POST", body: (text) => JSON.parse(text).length === PIECES * PIECE.length },
  events: { path: `/events?n=${EVENTS}&s=0.02`, body: (text) => text.split("\n\n").length === EVENTS + 1 },
};

// Resolves to "done", "again" or the text that says what was lost.
function request(name) {
  return new Promise((resolve) => {
    const kind = KINDS[name];
    let stream, status = null, body = "", owner;
    try {
      owner = connection();
      stream = owner.request({ ":path": prefix + kind.path, ":method": kind.method || "GET" }, { endStream: !kind.method });
    } catch (error) {
      session = null;
      // The session has been told GOAWAY: nothing was sent.
      resolve(/GOAWAY|INVALID_SESSION/.test(error.code) ? "again" : `${name}: ${error.code}`);
      return;
    }
    let failure = "";
    stream.setEncoding("utf8");
    stream.on("response", (headers) => { status = headers[":status"]; });
    stream.on("data", (piece) => { body += piece; });
    stream.on("error", (error) => { failure = error.code || error.message; });
    stream.on("close", () => {
      if (status === 200 && !failure && kind.body(body)) resolve("done");
      else if (stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM) resolve("again");
      else resolve(`${name}: status ${status}, reset ${stream.rstCode}, ${failure}, ${body.length} octets, `
                   + `session ${owner.failure}`);
    });
    if (kind.method) send(stream);
  });
}

async function chain(names) {
  for (let number = 0; !stopping; number++) {
    const name = names[number % names.length];
    let outcome = await request(name);
    while (outcome === "again") {
      seen.retried++;
      outcome = await request(name);
    }
    if (outcome === "done") seen[name]++;
    else seen.lost.push(outcome);
    report();
    // A processor is shared with those who are tested.
    await pause(5);
  }
}

function report() {
  const reached = (goal) => seen.lost.length || Object.entries(goal).every(([name, count]) => seen[name] >= count);
  goals = goals.filter((goal) => {
    if (reached(goal)) console.log(JSON.stringify(seen));
    return !reached(goal);
  });
}

async function main() {
  const running = [];
  for (let number = 0; number < Number(chains); number++) {
    running.push(chain([["hello"], ["hello"], ["upload"], ["events"]][number % 4]));
  }
  console.log("ready");
  process.stdin.on("end", () => { stopping = true; });
  process.stdin.on("data", (line) => { goals.push(JSON.parse(line)); report(); });
  await Promise.all(running);
  console.log(JSON.stringify(seen));
  process.exit(0);
}

main();
