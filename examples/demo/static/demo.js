"use strict"
// Everything that is shown has been measured here, or is said by the server about the request in question.

const element = id => document.getElementById(id)
const {load: LOAD, other, tiles: TILES, columns: COLUMNS} = document.body.dataset
const ORIGINS = {h1: other, h2: location.origin}
const NAMES = {h1: "HTTP/1.1", h2: "HTTP/2"}
const CONNECTIONS = 6 // What browsers open to one host for HTTP/1.1.
const BUFFER = 4000 // Entries of Resource Timing that the browser is to keep: a run of both sides makes 370.

const number = (value, digits = 0) => value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits})
const ms = value => `${number(value, value < 9.95 ? 1 : 0)} ms`
const seconds = value => value < 1000 ? ms(value) : `${number(value / 1000, 2)} s`
const megabytes = value => `${number(value / 1e6, 1)} MB`
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`
const colour = name => getComputedStyle(document.body).getPropertyValue(name).trim()
const pause = duration => new Promise(resolve => setTimeout(resolve, duration))

function setText(texts) {
  for (const [id, text] of Object.entries(texts)) element(id).textContent = text
}

function setState(id, state, status) {
  element(id).dataset.state = state
  if (status !== undefined) element(`${id}-status`).textContent = status
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

// Canvases are drawn anew when their size or the colours change.
const drawings = new Map()

function draw(canvas, paint) {
  drawings.set(canvas, paint)
  const {clientWidth: width, clientHeight: height} = canvas, scale = devicePixelRatio
  canvas.width = Math.round(width * scale)
  canvas.height = Math.round(height * scale)
  const context = canvas.getContext("2d")
  context.scale(scale, scale)
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`
  paint(context, width, height)
}

function redraw() {
  for (const [canvas, paint] of drawings) draw(canvas, paint)
}

// -- this connection --------------------------------------------------------------------------------------------------

const navigation = () => performance.getEntriesByType("navigation")[0]

function showBadge() {
  const hop = navigation().nextHopProtocol, good = hop === "h2"
  setText({"badge-protocol": hop || "?", "connection-hop": hop || "unknown",
           "badge-text": good ? "This page came over HTTP/2" : hop === "http/1.1" ? "This page came over HTTP/1.1"
             : "The browser does not say how this page came"})
  element("badge").classList.add(good ? "good" : "bad")
}

async function askForConnection() {
  try {
    const about = await (await fetch("/connection", {cache: "no-store"})).json()
    setText({"connection-protocol": about.protocol, "connection-port": about.port,
             "connection-tls": about.tls ? `${about.tls}, ${about.cipher}` : "not told",
             "connection-stream": about.stream ?? "none"})
    setState("connection", "done")
    return about
  } catch {
    setText({"connection-protocol": "the server does not answer"})
    setState("connection", "failed")
    return {}
  }
}

// -- tiles ------------------------------------------------------------------------------------------------------------

const results = {}
let runs = 0

function makeMosaics() {
  for (const side of Object.keys(ORIGINS)) {
    const pictures = Array.from({length: TILES}, () => Object.assign(new Image(), {alt: ""}))
    element(`${side}-mosaic`).style.setProperty("--columns", COLUMNS)
    element(`${side}-mosaic`).replaceChildren(...pictures)
  }
}

/** Load one picture; the result says whether it has come. */
function load(picture, url) {
  return new Promise(resolve => {
    picture.onload = () => resolve(true)
    picture.onerror = () => { picture.className = "failed"; resolve(false) }
    picture.src = url
  })
}

/** Have the browser open its connections, or find out that it can't. */
async function connect(side) {
  const count = side === "h1" ? CONNECTIONS : 1
  const urls = Array.from({length: count}, (_, index) => `${ORIGINS[side]}/tiles/connect${runs}-${index}/0.png?wait=60`)
  return (await Promise.all(urls.map(url => load(new Image(), url)))).includes(true)
}

/** Return the Resource Timing of what has come; an entry may appear a moment after its picture. */
async function timingsOf(prefix, count) {
  const find = () => performance.getEntriesByType("resource").filter(entry => entry.name.startsWith(prefix))
  for (let tries = 0; tries < 100 && find().length < count; tries++) await pause(10)
  return find()
}

/** Load the tiles of one side; return what has been measured. */
async function loadSide(side, wait) {
  const prefix = `${ORIGINS[side]}/tiles/${runs}/`, mosaic = element(`${side}-mosaic`)
  const began = performance.now()
  let running = true
  const tick = () => {
    if (running) {
      setText({[`${side}-total`]: seconds(performance.now() - began)})
      requestAnimationFrame(tick)
    }
  }
  requestAnimationFrame(tick)
  const loaded = await Promise.all([...mosaic.children].map((picture, index) =>
    load(picture, `${prefix}${index}.png?wait=${wait}`)))
  running = false
  const count = loaded.filter(Boolean).length
  return summarize(count, (await timingsOf(prefix, count)).filter(entry => loaded[tileOf(entry)]))
}

const tileOf = entry => Number(/(\d+)\.png/.exec(entry.name)[1])

function summarize(count, entries) {
  const start = Math.min(...entries.map(entry => entry.startTime))
  const rows = entries.map(entry => ({
    tile: tileOf(entry),
    start: entry.startTime - start,
    queued: entry.requestStart - entry.startTime,
    waiting: entry.responseStart - entry.requestStart,
    receiving: entry.responseEnd - entry.responseStart,
  })).sort((a, b) => a.start + a.queued - b.start - b.queued)
  const ports = entries.flatMap(entry => entry.serverTiming.filter(({name}) => name === "port"))
  return {
    count, rows,
    total: Math.max(...entries.map(entry => entry.responseEnd)) - start,
    protocols: [...new Set(entries.map(entry => entry.nextHopProtocol || "unknown"))],
    connections: new Set(ports.map(({description}) => description)).size,
    queued: median(rows.map(row => row.queued)),
    answer: median(rows.map(row => row.waiting + row.receiving)),
  }
}

function showSide(side) {
  const result = results[side], all = result?.count === Number(TILES)
  if (!result?.rows.length) {
    setText({[`${side}-total`]: "–", [`${side}-protocol`]: "–", [`${side}-connections`]: "–",
             [`${side}-queued`]: "–", [`${side}-answer`]: "–"})
  } else {
    setText({[`${side}-total`]: seconds(result.total), [`${side}-protocol`]: result.protocols.join(", "),
             [`${side}-connections`]: result.connections || "not told",
             [`${side}-queued`]: `${ms(result.queued)}`, [`${side}-answer`]: `${ms(result.answer)}`})
  }
  element(`${side}-mosaic`).setAttribute("aria-label", result ? `${result.count} of ${TILES} tiles loaded` : "No tiles yet")
  element(`${side}-waterfall`).setAttribute("aria-label", result?.rows.length
    ? `Waterfall of ${plural(result.count, "tile")} over ${NAMES[side]}: ${seconds(result.total)} in all. The table below has the figures.`
    : "No timings yet")
  element(`${side}-total`).classList.toggle("partial", Boolean(result) && !all)
  draw(element(`${side}-waterfall`), (context, width, height) => drawWaterfall(context, width, height, side))
}

/** Return a round step for an axis of which no more than `most` fit into a length. */
function axisStep(length, most) {
  const power = 10 ** Math.floor(Math.log10(length / most))
  return [1, 2, 5, 10].map(factor => factor * power).find(step => length / step <= most)
}

function drawWaterfall(context, width, height, side) {
  const length = Math.max(...Object.values(results).filter(Boolean).map(result => result.total).filter(Number.isFinite), 1)
  const bottom = height - 20, at = time => time / length * (width - 30)
  context.textAlign = "center"
  for (let time = 0, step = axisStep(length, Math.max(Math.min(width / 56, 6), 1)); time <= length; time += step) {
    context.fillStyle = colour("--line")
    context.fillRect(Math.round(at(time)), 0, 1, bottom)
    context.fillStyle = colour("--muted")
    context.textAlign = time ? "center" : "left"
    context.fillText(time ? number(time, step < 1 ? 1 : 0) : "0 ms", at(time), height - 5)
  }
  const result = results[side]
  if (!result?.rows.length) return
  const tall = bottom / TILES
  for (const [index, row] of result.rows.entries()) {
    let from = row.start
    for (const phase of ["queued", "waiting", "receiving"]) {
      context.fillStyle = colour(phase === "queued" ? "--queued" : `--${side}-${phase}`)
      // What is too short to be seen is shown all the same.
      context.fillRect(at(from), index * tall, Math.max(at(row[phase]), phase === "receiving" ? 1 : 0), tall + 0.3)
      from += row[phase]
    }
  }
  context.fillStyle = colour(`--${side}`)
  context.fillRect(at(result.total), 0, 1.5, bottom)
}

function readOut(side, event) {
  const canvas = element(`${side}-waterfall`)
  const row = results[side]?.rows[Math.floor(event.offsetY / ((canvas.clientHeight - 20) / TILES))]
  setText({[`${side}-readout`]: row
    ? `Tile ${row.tile}: queued ${ms(row.queued)}, waiting ${ms(row.waiting)}, receiving ${ms(row.receiving)}` : ""})
}

function showTable() {
  const cells = row => row ? ["start", "queued", "waiting", "receiving"].map(phase => number(row[phase], 1)) : ["–", "–", "–", "–"]
  const bySide = Object.keys(ORIGINS).map(side => new Map(results[side]?.rows.map(row => [row.tile, row])))
  element("timings-body").replaceChildren(...Array.from({length: TILES}, (_, tile) => {
    const line = document.createElement("tr")
    line.append(Object.assign(document.createElement("th"), {scope: "row", textContent: tile}))
    for (const rows of bySide) for (const text of cells(rows.get(tile))) {
      line.append(Object.assign(document.createElement("td"), {textContent: text}))
    }
    return line
  }))
}

function verdict() {
  const {h1, h2} = results
  const lost = Object.entries(results).filter(([, result]) => result && result.count < TILES)
    .map(([side, result]) => `${TILES - result.count} of ${NAMES[side]}'s tiles did not come.`)
  if (lost.length) return lost.join(" ")
  if (!h1) return `HTTP/2: ${seconds(h2.total)}. The HTTP/1.1 side could not be reached, so there is nothing to compare.`
  const ratio = h1.total / h2.total, both = `HTTP/2 took ${seconds(h2.total)}. HTTP/1.1 took ${seconds(h1.total)}`
  if (ratio >= 1.1) return `${both}, ${number(ratio, 1)} times as long.`
  return ratio > 1 / 1.1 ? `${both}: no difference to speak of.` : `${both}: it was faster this time.`
}

async function loadTiles() {
  const panel = element("tiles"), button = element("run"), wait = Number(element("wait").value)
  if (panel.getAttribute("aria-busy") === "true") return
  runs += 1
  panel.setAttribute("aria-busy", "true")
  panel.dataset.state = "running"
  button.disabled = true
  if (performance.getEntriesByType("resource").length > BUFFER - 1000) performance.clearResourceTimings()
  for (const side of Object.keys(ORIGINS)) results[side] = undefined
  makeMosaics()
  Object.keys(ORIGINS).forEach(showSide)
  for (const side of Object.keys(ORIGINS)) {
    setText({verdict: `Loading ${TILES} tiles over ${NAMES[side]} …`})
    const reached = await connect(side)
    if (side === "h1") element("hint").hidden = reached
    if (reached) results[side] = await loadSide(side, wait)
    Object.keys(ORIGINS).forEach(showSide)
  }
  showTable()
  setText({verdict: results.h2 ? verdict() : "The server does not answer: is it still running?"})
  button.disabled = false
  panel.dataset.state = results.h1 && results.h2 ? "done" : "failed"
  panel.setAttribute("aria-busy", "false")
}

function prepareTiles() {
  makeMosaics()
  setText({"hint-url": `${other}/`})
  element("hint-link").href = `${other}/`
  element("wait").addEventListener("input", event => setText({"wait-output": `${event.target.value} ms`}))
  element("tiles-form").addEventListener("submit", event => { event.preventDefault(); loadTiles() })
  for (const side of Object.keys(ORIGINS)) {
    const canvas = element(`${side}-waterfall`)
    canvas.addEventListener("pointermove", event => readOut(side, event))
    canvas.addEventListener("pointerleave", () => setText({[`${side}-readout`]: ""}))
    showSide(side)
  }
}

// -- early hints ------------------------------------------------------------------------------------------------------

async function showHints() {
  const page = navigation(), answered = page.finalResponseHeadersStart || page.responseStart
  const parts = performance.getEntriesByType("resource").filter(entry => entry.name.includes(`/parts/${LOAD}/`))
  const used = parts.filter(entry => entry.initiatorType === "early-hints")
  const rows = [["page, being made", page.requestStart, answered, "page"], ["page, arriving", answered, page.responseEnd, "arriving"]]
  if (page.firstInterimResponseStart) rows.push(["103 arrives", page.firstInterimResponseStart, page.firstInterimResponseStart, "mark"])
  for (const entry of parts) rows.push([`${partName(entry.name)}, used`, entry.startTime, entry.responseEnd, "used"])
  let asked = {}
  try {
    asked = await (await fetch(`/loads/${LOAD}`, {cache: "no-store"})).json()
  } catch {} // Then there is less to be shown.
  const early = Object.keys(asked).filter(name => name.startsWith("demo.") && asked[name][0] < asked.page[0])
  // The server has a clock of its own; what it calls "hint" is what arrives here as the 103.
  const offset = page.firstInterimResponseStart ? page.firstInterimResponseStart - asked.hint?.[0] : page.requestStart
  for (const name of early) {
    const at = offset + asked[name][0]
    rows.push([`${partName(name)}, asked for`, at, at, "hinted"])
  }
  showTimeline(rows.sort((a, b) => a[1] - b[1]), page.requestStart)
  const lead = early.length ? `On the hint, the browser asked for ${early.map(partName).join(" and ")} ${ms(asked.page[0] - asked[early[0]][0])} before the page was sent` : ""
  const again = early.some(name => asked[name].length > 1)
  if (used.length) setState("hints", "done", `${lead || "The browser acted on the hint"}, and had them when it came.`)
  else if (again) setState("hints", "done", `${lead}, and once more for the page: it keeps nothing while it does not trust the certificate.`)
  else if (lead) setState("hints", "done", `${lead}.`)
  else if (page.nextHopProtocol !== "h2") setState("hints", "failed", "Browsers act on hints over HTTP/2 only.")
  else setState("hints", "failed", "The browser has not acted on the hint. Some browsers never do, and a busy one may drop it.")
}

const partName = path => path.includes("css") ? "style sheet" : "script"

function showTimeline(rows, start) {
  const length = Math.max(...rows.map(row => row[2])) - start
  element("hints-timeline").replaceChildren(...rows.map(([label, from, to, kind]) => {
    const line = document.createElement("div"), track = document.createElement("div"), bar = document.createElement("i")
    line.className = "row"
    track.className = "track"
    bar.className = kind
    bar.style.left = `${(from - start) / length * 100}%`
    bar.style.width = `${(to - from) / length * 100}%`
    track.append(bar)
    const figure = from === to ? `at ${ms(from - start)}` : `${number(from - start)} – ${number(to - start)} ms`
    line.append(...[label, track, figure].map(content => content instanceof Node ? content
      : Object.assign(document.createElement("span"), {textContent: content})))
    return line
  }))
}

// -- server-sent events -----------------------------------------------------------------------------------------------

const SHOWN = 60
const ticks = []
let source

function startEvents() {
  let last
  source = new EventSource("/events")
  setState("events", "connecting", "Connecting …")
  source.onmessage = event => {
    const now = performance.now(), news = JSON.parse(event.data)
    if (last) {
      ticks.push(Math.max(news.answered - last.answered, 0))
      setText({"events-gap": ms(now - last.now)})
    }
    last = {now, answered: news.answered}
    if (ticks.length > SHOWN) ticks.shift()
    setText({"events-count": number(news.number), "events-answered": number(news.answered)})
    if (element("events").dataset.state !== "open") {
      setState("events", "open", news.stream ? `Open: stream ${news.stream}, ${samePort(news.port)}.` : `Open, over ${news.protocol}.`)
    }
    drawEvents()
  }
  source.onerror = () => {
    last = undefined
    setState("events", "failed", source.readyState === EventSource.CLOSED
      ? "The server has refused." : "The connection is lost; the browser tries again.")
  }
}

function drawEvents() {
  draw(element("events-chart"), (context, width, height) => {
    const top = Math.max(...ticks, 10), slot = width / SHOWN, bottom = height - 1
    context.fillStyle = colour("--line")
    context.fillRect(0, bottom, width, 1)
    context.fillStyle = colour("--h2")
    ticks.forEach((value, index) => {
      const tall = Math.max(value / top * (bottom - 16), value ? 2 : 1)
      context.fillRect((SHOWN - ticks.length + index) * slot + 1, bottom - tall, Math.max(slot - 2, 1), tall)
    })
    context.fillStyle = colour("--muted")
    context.textAlign = "left"
    context.fillText(`requests answered from event to event; highest ${number(Math.max(...ticks, 0))}`, 0, 10)
  })
}

function toggleEvents() {
  const stop = element("events-toggle").textContent === "Stop"
  if (stop) {
    source.close()
    setState("events", "stopped", "Stopped: the browser has reset the stream.")
  } else {
    startEvents()
  }
  element("events-toggle").textContent = stop ? "Start" : "Stop"
}

// -- upload -----------------------------------------------------------------------------------------------------------

const RANDOM_SIZE = 2 ** 24
const LARGEST_HASHED = 2 ** 28
let upload

function randomOctets() {
  const octets = new Uint8Array(RANDOM_SIZE)
  for (let start = 0; start < RANDOM_SIZE; start += 65_536) crypto.getRandomValues(octets.subarray(start, start + 65_536))
  return new Blob([octets])
}

async function sha256(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()))
  return [...digest].map(octet => octet.toString(16).padStart(2, "0")).join("")
}

/** Send a body; the result is the server's answer, and the time it took in the page. */
function send(blob, rate) {
  return new Promise((resolve, reject) => {
    const began = performance.now()
    upload = new XMLHttpRequest()
    upload.open("POST", `/upload?rate=${rate}`)
    upload.responseType = "json"
    upload.upload.onprogress = ({loaded, total}) => {
      element("upload-progress").value = loaded / total
      setText({"upload-status": `${megabytes(loaded)} of ${megabytes(total)} handed over, ${number(loaded / total * 100)} %`,
               "upload-time": seconds(performance.now() - began)})
    }
    upload.onload = () => upload.status === 200 ? resolve([upload.response, performance.now() - began])
      : reject(new Error(`The server has answered ${upload.status}.`))
    upload.onerror = () => reject(new Error("The connection was lost."))
    upload.onabort = () => reject(new Error("Cancelled."))
    upload.send(blob)
  })
}

async function startUpload() {
  const blob = element("file").files[0] ?? randomOctets()
  element("upload-start").disabled = true
  element("upload-cancel").disabled = false
  element("upload-progress").value = 0
  setText({"upload-size": `${number(blob.size)} octets`, "upload-hash": "–", "upload-time": "–"})
  setState("upload", "running", "Uploading …")
  try {
    const [answer, took] = await send(blob, element("rate").value)
    element("upload-progress").value = 1
    setText({"upload-size": `${number(answer.size)} octets`, "upload-time": `${seconds(took)}, ${megabytes(answer.size / took * 1000)}/s`,
             "upload-hash": answer.sha256})
    if (blob.size > LARGEST_HASHED) {
      setState("upload", "done", `Complete, over ${answer.protocol}. The file is too large to be hashed in the page as well.`)
    } else {
      const same = answer.sha256 === await sha256(blob) && answer.size === blob.size
      setState("upload", same ? "done" : "failed", same
        ? `Complete, over ${answer.protocol}. The page has computed the same hash.` : "The page has computed another hash!")
    }
  } catch (error) {
    setState("upload", "failed", error.message)
  }
  element("upload-start").disabled = false
  element("upload-cancel").disabled = true
}

function prepareUpload() {
  element("file").addEventListener("change", ({target}) =>
    setText({"file-name": target.files[0]?.name ?? "16 MiB of random octets"}))
  element("upload-form").addEventListener("submit", event => { event.preventDefault(); startUpload() })
  element("upload-cancel").addEventListener("click", () => upload.abort())
}

// -- WebSocket --------------------------------------------------------------------------------------------------------

const LOGGED = 5
let socket, connection = {}

const samePort = port => port === connection.port ? "on this page's connection" : "on a connection of its own"

function log(text, detail) {
  const line = document.createElement("li")
  line.append(...[text, detail].map(textContent => Object.assign(document.createElement("span"), {textContent})))
  element("socket-log").append(line)
  while (element("socket-log").childElementCount > LOGGED) element("socket-log").firstElementChild.remove()
}

function openSocket() {
  const sent = []
  socket = new WebSocket(`wss://${location.host}/socket`)
  setState("socket", "connecting", "Connecting …")
  socket.onmessage = event => {
    const about = JSON.parse(event.data)
    if (about.echo === undefined) {
      setState("socket", "open", about.stream ? `Open over ${about.protocol}: stream ${about.stream}, ${samePort(about.port)}.`
        : `Open over ${about.protocol}, on a connection of its own.`)
      element("socket-send").textContent = "Send"
      element("socket-send").disabled = false
      say()
    } else {
      log(about.echo, ms(performance.now() - sent.shift()))
    }
  }
  socket.onclose = ({code}) => {
    setState("socket", "failed", `Closed (${code}).`)
    element("socket-send").textContent = "Connect"
    element("socket-send").disabled = false
  }
  const say = () => {
    sent.push(performance.now())
    socket.send(element("socket-text").value)
  }
  socket.say = say
}

function prepareSocket() {
  element("socket-form").addEventListener("submit", event => {
    event.preventDefault()
    if (socket.readyState === WebSocket.OPEN) socket.say()
    else openSocket()
  })
}

// -- all of it --------------------------------------------------------------------------------------------------------

async function begin() {
  performance.setResourceTimingBufferSize(BUFFER)
  showBadge()
  prepareTiles()
  prepareUpload()
  prepareSocket()
  element("events-toggle").addEventListener("click", toggleEvents)
  element("reload").addEventListener("click", () => location.reload())
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw)
  new ResizeObserver(redraw).observe(document.body)
  if (document.readyState !== "complete") await new Promise(resolve => addEventListener("load", resolve))
  // The timings of the page itself are complete only after its load event.
  await pause(0)
  showHints()
  connection = await askForConnection()
  startEvents()
  openSocket()
  await loadTiles()
}

begin()
