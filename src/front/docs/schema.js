// The swagger document of the script: its sample, and its schemas as tables. A script may be hostile: every text
// becomes a text node, never markup, and documents that refer to themselves, or are huge, are cut off.

const MOST_ROWS = 200;
const DEEPEST = 12;

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// A member of the document's own, so that names such as "constructor" find nothing.
function own(value, name) {
  return isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
}

// The part that `$ref` names, as often as it names one.
function resolved(document, schema) {
  for (let times = 0; times < DEEPEST && typeof own(schema, "$ref") === "string"; times++) {
    const steps = schema.$ref.replace(/^#\//, "").split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    schema = steps.reduce((part, step) => own(part, step), document);
  }
  return isObject(schema) && !Object.hasOwn(schema, "$ref") ? schema : {};
}

// The operation of POST /score, which the gateway may serve below a prefix.
function scoring(document) {
  const paths = Object.entries(own(document, "paths") || {});
  const found = paths.find(([path]) => path.endsWith("/score"));
  return found ? own(found[1], "post") : undefined;
}

// The schema of what is in `content` (version 3), or next to it (version 2).
function contentSchema(holder) {
  const content = own(holder, "content");
  const media = isObject(content) ? own(content, "application/json") || Object.values(content)[0] : holder;
  return { schema: own(media, "schema"), example: own(media, "example") };
}

function inputOf(document) {
  const operation = scoring(document);
  const parameters = own(operation, "parameters");
  const inBody = Array.isArray(parameters) ? parameters.find((each) => own(each, "in") === "body") : undefined;
  return contentSchema(inBody || resolved(document, own(operation, "requestBody")));
}

function outputOf(document) {
  return contentSchema(resolved(document, own(own(scoring(document), "responses"), "200")));
}

// A value that fits the schema; undefined if nothing is known. `left` counts down the parts that may still be visited.
function sampleOf(document, { schema, example }, depth = 0, left = { parts: MOST_ROWS }) {
  if (example !== undefined) return example;
  const known = resolved(document, schema);
  if (Object.hasOwn(known, "example")) return known.example;
  if (Array.isArray(known.examples) && known.examples.length) return known.examples[0];
  if (Object.hasOwn(known, "default")) return known.default;
  if (Array.isArray(known.enum)) return known.enum[0];
  if (depth > DEEPEST || left.parts-- <= 0) return undefined;
  if (isObject(known.properties)) {
    const members = Object.entries(known.properties).slice(0, MOST_ROWS);
    const samples = members.map(([name, part]) => [name, sampleOf(document, { schema: part }, depth + 1, left)]);
    return Object.fromEntries(samples.filter(([, value]) => value !== undefined));
  }
  if (known.type === "array") {
    const item = sampleOf(document, { schema: known.items }, depth + 1, left);
    return item === undefined ? [] : [item];
  }
  return { string: "", number: 0, integer: 0, boolean: true, object: {} }[known.type];
}

function typeText(document, schema, depth = 0) {
  const known = resolved(document, schema);
  const names = [known.type].flat().filter((name) => typeof name === "string");
  if (names.includes("array") && depth < DEEPEST && known.items) return `array of ${typeText(document, known.items, depth + 1)}`;
  const name = names.join(" or ") || (isObject(known.properties) ? "object" : "any value");
  return typeof known.format === "string" ? `${name} (${known.format})` : name;
}

// One row for each named part: [path, type, description].
function rowsOf(document, schema, path = "", depth = 0, rows = []) {
  const known = resolved(document, schema);
  if (path && rows.length < MOST_ROWS) rows.push([path, typeText(document, known), String(known.description ?? "")]);
  if (depth >= DEEPEST || rows.length >= MOST_ROWS) return rows;
  if (isObject(known.properties)) {
    for (const [name, part] of Object.entries(known.properties)) {
      rowsOf(document, part, path ? `${path}.${name}` : name, depth + 1, rows);
    }
  }
  let item = known;
  let suffix = "";
  while (item.type === "array" && suffix.length < 2 * DEEPEST) {
    item = resolved(document, item.items);
    suffix += "[]";
  }
  if (suffix && isObject(item.properties)) {
    for (const [name, part] of Object.entries(item.properties)) {
      rowsOf(document, part, `${path}${suffix}.${name}`, depth + 1, rows);
    }
  }
  return rows;
}
