// What the page does: reads the description, sends requests, shows answers. The texts come from text.js and schema.js.

const $ = (id) => document.getElementById(id);
// Longer texts are cut on the page; the whole can be downloaded.
const MOST_SHOWN = 500_000;
const ASK_AGAIN_MS = 2000;

let sample = "";
let running = null;
let answerText = "";

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- Health

async function showHealth() {
  let text = "not reachable";
  let kind = "bad";
  try {
    const reply = await fetch("readyz", { cache: "no-store" });
    [text, kind] = reply.ok ? ["ready", "good"] : ["not ready", "warn"];
  } catch {
    // The text says so.
  }
  const chip = $("health");
  if (chip.textContent !== text) chip.textContent = text;
  chip.className = `chip ${kind}`;
  if (kind !== "good") setTimeout(showHealth, ASK_AGAIN_MS);
}

// ---- The description of the script

async function readDescription() {
  for (const version of ["3.1", "3", "2"]) {
    const reply = await fetch(`swagger.json?version=${version}`);
    if (reply.ok) return reply.json();
    if (reply.status !== 404) throw new Error(`/swagger.json was answered with status ${reply.status}`);
  }
  throw new Error("the script has no description in any version");
}

function showDescription(description) {
  const info = own(description, "info");
  const title = own(info, "title");
  if (typeof title === "string" && title) {
    $("title").textContent = title;
    document.title = title;
  }
  const version = own(info, "version");
  const about = [own(info, "description"), typeof version === "string" ? `Version ${version}.` : ""];
  $("description").textContent = about.filter((text) => typeof text === "string").join(" ");
  const input = inputOf(description);
  const output = outputOf(description);
  showSample(sampleOf(description, input));
  $("interface").replaceChildren(
    schemaCard("Input", description, input, "The script does not describe its input. Decorate run() with @input_schema."),
    schemaCard("Output", description, output, "The script does not describe its output. Decorate run() with @output_schema."),
  );
  showOwnRoutes(description);
}

function showSample(value) {
  const isKnown = value !== undefined && !(isObject(value) && Object.keys(value).length === 0);
  if (isKnown) {
    const text = JSON.stringify(value);
    sample = laidOut(text) ?? text;
    $("sample").hidden = false;
    $("body-hint").textContent = "The sample of @input_schema.";
    if (!$("body").value) $("body").value = sample;
  } else {
    $("body-hint").textContent = "The script has no sample. Type what run() expects.";
  }
  showSnippets();
}

function schemaCard(title, description, holder, ifUnknown) {
  const card = element("div", "", "card");
  card.append(element("h3", title));
  const rows = rowsOf(description, holder.schema);
  const type = typeText(description, holder.schema);
  const example = sampleOf(description, holder);
  const isEmpty = isObject(example) && Object.keys(example).length === 0;
  if (!rows.length && (example === undefined || isEmpty)) {
    card.append(element("p", ifUnknown, "quiet"));
    return card;
  }
  card.append(element("p", `It is JSON: ${type}.`));
  if (rows.length) card.append(table(["Part", "Type", "Meaning"], rows, `Parts of the ${title.toLowerCase()}`));
  if (example !== undefined && !isEmpty) {
    const text = JSON.stringify(example);
    const shown = element("pre", cut(laidOut(text) ?? text));
    shown.tabIndex = 0;
    shown.setAttribute("aria-label", `Example of the ${title.toLowerCase()}`);
    card.append(element("h4", "Example"), shown);
  }
  return card;
}

function table(heads, rows, caption) {
  const has = heads.map((_, column) => rows.some((row) => row[column]));
  const made = element("table");
  made.append(element("caption", caption));
  const head = made.createTHead().insertRow();
  heads.forEach((text, column) => {
    if (!has[column]) return;
    const cell = element("th", text);
    cell.scope = "col";
    head.append(cell);
  });
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, column) => {
      if (has[column]) line.insertCell().append(column === 0 ? element("code", text) : text);
    });
  }
  const scroll = element("div", "", "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", caption);
  scroll.append(made);
  return scroll;
}

// Routes of a document that the user has written. The generated document has those of the server.
function showOwnRoutes(description) {
  const known = ["/", "/score", "/swagger.json"];
  const rows = [];
  for (const [path, operations] of Object.entries(own(description, "paths") || {}).slice(0, MOST_ROWS)) {
    if (known.some((route) => path === route || path.endsWith(route))) continue;
    for (const [method, operation] of Object.entries(isObject(operations) ? operations : {})) {
      rows.push([`${method.toUpperCase()} ${path}`, String(own(operation, "description") ?? own(operation, "summary") ?? "")]);
    }
  }
  if (rows.length) $("own-routes").replaceChildren(table(["Request", "Answer"], rows, "Also in the script's own swagger file"));
}

// ---- The request

function typedHeaders() {
  const pairs = [];
  for (const line of $("headers").value.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) pairs.push([line.slice(0, colon).trim(), line.slice(colon + 1).trim()]);
  }
  return pairs;
}

function asTyped() {
  const method = $("method").value;
  const query = $("query").value.replace(/^\?/, "");
  const url = new URL("score", document.baseURI);
  url.search = query;
  const headers = typedHeaders();
  const file = method === "GET" ? null : ($("file").files[0] ?? null);
  const body = method === "GET" || file ? null : $("body").value;
  const type = $("content-type").value.trim();
  const hasType = headers.some(([name]) => name.toLowerCase() === "content-type");
  if (method !== "GET" && type && !hasType) headers.unshift(["Content-Type", type]);
  return { method, url: url.href, headers, body, file };
}

function showSnippets() {
  const request = asTyped();
  const named = { ...request, file: request.file?.name ?? null };
  $("curl").textContent = asCurl(named);
  $("python").textContent = asPython(named);
  $("body-part").hidden = request.method === "GET";
  $("body").disabled = request.file !== null;
}

async function send() {
  if (running) return;
  const request = asTyped();
  running = new AbortController();
  $("send").disabled = true;
  $("cancel").hidden = false;
  const started = performance.now();
  say("Sent. Waiting for the answer …");
  try {
    const reply = await fetch(request.url, {
      method: request.method,
      headers: [["Accept", "application/json, */*"], ...request.headers.filter(([name]) => name.toLowerCase() !== "accept")],
      body: request.file ?? request.body ?? undefined,
      cache: "no-store",
      signal: running.signal,
    });
    const bytes = await readBody(reply);
    showAnswer(reply, bytes, performance.now() - started);
    if (!reply.ok) readErrors();
  } catch (error) {
    $("answer").hidden = true;
    const wasCancelled = error.name === "AbortError";
    say(wasCancelled ? "Cancelled. The script may still run." : `There is no answer: ${error.message}.`, !wasCancelled);
    showHealth();
  } finally {
    running = null;
    $("send").disabled = false;
    $("cancel").hidden = true;
  }
}

// All bytes of the answer. A stream is shown as it comes.
async function readBody(reply) {
  const parts = [];
  const decoder = new TextDecoder();
  let shown = "";
  const isText = /json|text|xml|event-stream|^$/.test(reply.headers.get("content-type") ?? "");
  for (const reader = reply.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    if (isText && parts.length > 1 && shown.length < MOST_SHOWN) {
      shown = shown || decoder.decode(parts[0], { stream: true });
      shown += decoder.decode(value, { stream: true });
      $("answer").hidden = false;
      $("answer-body").hidden = false;
      $("answer-body").textContent = cut(shown);
    }
  }
  return new Blob(parts, { type: reply.headers.get("content-type") ?? "" });
}

async function showAnswer(reply, blob, milliseconds) {
  const kind = reply.ok ? "good" : reply.status < 500 ? "warn" : "bad";
  const inRun = reply.headers.get("x-ms-run-fn-exec-ms");
  say(`Status ${reply.status}, after ${milliseconds.toFixed(1)} ms.`);
  const facts = [
    ["Status", `${reply.status} ${reply.statusText}`.trim(), kind],
    ["Time", `${milliseconds.toFixed(1)} ms`],
    ["In run()", inRun === null ? "" : `${Number(inRun).toFixed(1)} ms`],
    ["Size", sizeText(blob.size)],
    ["Error", reply.headers.get("x-ms-run-error-location") ?? ""],
    ["Reload", reply.headers.get("x-azmlinfsrv-reload") ?? "", "warn"],
  ];
  $("facts").replaceChildren(...facts.filter(([, text]) => text).map(([name, text, className]) => {
    const fact = element("div");
    fact.append(element("dt", name), element("dd", text, className));
    return fact;
  }));
  $("answer-headers").replaceChildren(...[...reply.headers].flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  await showBody(blob);
  $("answer").hidden = false;
}

async function showBody(blob) {
  const [image, body, download] = [$("image"), $("answer-body"), $("download")];
  for (const old of [image.src, download.href]) if (old) URL.revokeObjectURL(old);
  image.removeAttribute("src");
  const isImage = blob.type.startsWith("image/");
  const bytes = isImage ? null : await blob.arrayBuffer();
  let text = null;
  try {
    text = bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // It is binary.
  }
  answerText = text ?? "";
  download.href = URL.createObjectURL(blob);
  download.hidden = blob.size === 0;
  image.hidden = !isImage;
  if (isImage) image.src = URL.createObjectURL(blob);
  body.hidden = isImage;
  body.textContent = text === null ? "The body is binary." : text === "" ? "The body is empty." : cut(pretty(text));
  $("copy-answer").hidden = !answerText;
}

function pretty(text) {
  return (text.length <= MOST_SHOWN && laidOut(text)) || text;
}

function cut(text) {
  if (text.length <= MOST_SHOWN) return text;
  return `${text.slice(0, MOST_SHOWN)}\n… ${text.length - MOST_SHOWN} more characters. Download the body to see all of it.`;
}

function say(text, isBad = false) {
  $("answer-state").textContent = text;
  $("answer-state").className = isBad ? "bad" : "quiet";
}

// ---- The last errors (--error_details)

async function readErrors() {
  if (document.documentElement.dataset.errors !== "on") return;
  $("errors").hidden = false;
  try {
    const reply = await fetch("docs?errors", { cache: "no-store" });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    showErrors(await reply.json());
  } catch (error) {
    $("errors-state").textContent = `The last errors cannot be read: ${error.message}.`;
  }
}

function showErrors(errors) {
  $("errors-state").textContent = errors.length
    ? "Newest first. The server keeps the last 20 error replies of /score, because of --error_details."
    : "No request to /score has failed since the server started.";
  $("error-list").replaceChildren(...errors.map((error) => {
    const item = element("details");
    const told = ownJson(error.reply);
    const message = own(told, "error") ?? own(told, "message") ?? error.reply;
    const time = new Date(error.time).toLocaleTimeString();
    item.append(
      element("summary", `${time} · ${error.status} · ${String(message).split("\n")[0].slice(0, 300)}`),
      element("p", [`${error.method} ${error.target}`, error.location, `request ${error.request_id}`].filter(Boolean).join(" · "), "quiet"),
      element("pre", String(own(told, "traceback") ?? pretty(error.reply))),
    );
    return item;
  }));
}

function ownJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// ---- Copying

async function copy(text, what) {
  let isDone = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    isDone = copyBySelection(text); // pages of a plain http address have no clipboard
  }
  $("copied").textContent = isDone ? `Copied ${what}.` : `The browser does not allow copying. Select the text, and copy it.`;
}

function copyBySelection(text) {
  const area = element("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}

// ---- Start

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("form").addEventListener("input", showSnippets);
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    send();
  }
});
$("cancel").addEventListener("click", () => running?.abort());
$("sample").addEventListener("click", () => {
  $("body").value = sample;
  $("content-type").value = "application/json";
  $("file").value = "";
  showSnippets();
});
$("copy-answer").addEventListener("click", () => copy(answerText, "the body of the answer"));
for (const button of document.querySelectorAll("[data-copy]")) {
  const id = button.dataset.copy;
  button.addEventListener("click", () => copy($(id).textContent, id === "curl" ? "the curl command" : "the Python program"));
}
$("read-errors").addEventListener("click", readErrors);

showSnippets();
showHealth();
readErrors();
readDescription().then(showDescription, (error) => {
  const told = element("p", `There is no description: ${error.message}.`, "bad");
  $("interface").replaceChildren(told);
  showSample(undefined);
});
