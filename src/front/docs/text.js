// Texts of the page: JSON laid out for reading, and a request as curl and as Python. Pure functions.

// The tokens of JSON, and of texts that are nearly JSON (NaN).
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const WIDTH = 56;

// JSON with line breaks and indentation; numbers stay as they are written. Null if the text is not JSON.
function laidOut(text) {
  try {
    JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (token) => (token[0] === '"' ? token : "0")));
  } catch {
    return null;
  }
  const tokens = text.match(TOKEN) || [];
  let at = 0;
  // A value that begins at the next token.
  function value(indent) {
    const first = tokens[at++];
    if (first !== "{" && first !== "[") return first;
    const close = first === "{" ? "}" : "]";
    const items = [];
    while (tokens[at] !== close) {
      let item = "";
      if (first === "{") {
        item = `${tokens[at]}: `;
        at += 2;
      }
      items.push(item + value(`${indent}  `));
      if (tokens[at] === ",") at++;
    }
    at++;
    const line = `${first}${items.join(", ")}${close}`;
    if (!line.includes("\n") && indent.length + line.length <= WIDTH) return line;
    const inner = `\n${indent}  `;
    return `${first}${inner}${items.join(`,${inner}`)}\n${indent}${close}`;
  }
  try {
    return value("");
  } catch {
    return null; // nested too deeply for this function
  }
}

// `request`: method, url, headers (pairs), body (text, or null), file (its name, or null).

function asCurl(request) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl ${quoted(request.url)}`];
  const implied = request.body !== null || request.file !== null ? "POST" : "GET";
  if (request.method !== implied) lines[0] = `curl -X ${request.method} ${quoted(request.url)}`;
  for (const [name, value] of request.headers) lines.push(`-H ${quoted(value ? `${name}: ${value}` : `${name};`)}`);
  if (request.file !== null) lines.push(`--data-binary ${quoted(`@${request.file}`)}`);
  else if (request.body !== null) lines.push(`--data-raw ${quoted(request.body)}`);
  return lines.join(" \\\n  ");
}

function asPython(request) {
  const literal = (text) =>
    text.includes("\n")
      ? `'''${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'").replaceAll("\r", "\\r")}'''`
      : JSON.stringify(text);
  const lines = ["import urllib.error", "import urllib.request", ""];
  let data = "";
  if (request.file !== null) {
    lines.push(`with open(${literal(request.file)}, "rb") as file:`, "    body = file.read()");
    data = "data=body, ";
  } else if (request.body !== null) {
    lines.push(`body = ${literal(request.body)}`);
    data = "data=body.encode(), ";
  }
  const headers = request.headers.map(([name, value]) => `${literal(name)}: ${literal(value)}`).join(", ");
  lines.push(
    `headers = {${headers}}`,
    `request = urllib.request.Request(${literal(request.url)}, ${data}headers=headers, method=${literal(request.method)})`,
    "try:",
    "    with urllib.request.urlopen(request) as answer:",
    "        print(answer.status, answer.read().decode(errors=\"replace\"))",
    "except urllib.error.HTTPError as error:",
    "    print(error.code, error.read().decode(errors=\"replace\"))",
  );
  return lines.join("\n");
}

function sizeText(bytes) {
  if (bytes < 1000) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
