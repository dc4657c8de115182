// What everything else is made of: elements, numbers in words, and what is known of metrics.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = document.getElementById("mould").namespaceURI;
const MINUS = "\u2212";

// An element; strings among its children become text, and nothing else.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// New children for an element; null is skipped.
function refill(element, ...children) {
  element.replaceChildren();
  return fill(element, {}, children);
}

// Names of arms are long: they break after a comma or an opening bracket.
const breakable = (text) => text.split(/(?<=[,(])/).flatMap((piece, index) => [index ? make("wbr") : null, piece]);

function armName(arm) {
  return make("code", { class: "arm" }, breakable(arm));
}

// The intervention of an arm above its options.
function armHead(arm) {
  const [intervention, ...options] = arm.split(/(?=\()/);
  return make(
    "span",
    { class: "arm-head" },
    make("code", { class: "arm" }, intervention),
    options.length ? make("small", {}, breakable(options.join(""))) : null,
  );
}

// The intervention without options, if no other arm has it.
const INTERVENTIONS = [...new Set(DATA.benchmarks.flatMap((benchmark) => benchmark.scores.arms))].map(
  (arm) => arm.split("(")[0],
);

function armShort(arm) {
  const intervention = arm.split("(")[0];
  const alone = INTERVENTIONS.filter((other) => other === intervention).length < 2;
  return alone && intervention !== arm ? make("code", { class: "arm", title: arm }, intervention) : armName(arm);
}

function scrollBox(label, ...children) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, ...children);
}

function picker(label, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) });
  fillPicker(select, options, value);
  return make("label", { class: "control" }, make("span", {}, label), select);
}

function fillPicker(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
}

function table(label, columns, rows, kind = "") {
  const head = columns.map((column, index) =>
    make(
      "th",
      { scope: "col", class: index ? (column.kind ?? "number") : "first" },
      column.text ?? column,
      column.note ? make("small", {}, column.note) : null,
    ),
  );
  return scrollBox(
    label,
    make(
      "table",
      { class: kind },
      make("caption", { class: "unseen" }, label),
      make("thead", {}, make("tr", {}, head)),
      make("tbody", {}, rows),
    ),
  );
}

function rowHead(...children) {
  return make("th", { scope: "row", class: "first" }, ...children);
}

const numeric = (text) => make("td", { class: "number" }, text);

// Numbers. What is not defined is "-".

function fixed(value, digits) {
  if (value === null || value === undefined) return "-";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

function signed(value, digits) {
  const text = fixed(value, digits);
  return value > 0 && Number(text) !== 0 ? "+" + text : text;
}

function shortly(value) {
  if (value === null || value === undefined) return "-";
  return String(Number(value.toPrecision(3))).replace("-", MINUS);
}

function pValue(p) {
  if (p === null || p === undefined) return "-";
  return p < 0.001 ? "<0.001" : p.toFixed(3);
}

const whole = (count) =>
  count === null || count === undefined ? "-" : count.toLocaleString("en").replaceAll(",", "\u202f");
const counted = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

// Metrics: which way is better, and what they mean in plain words.

const GLOSSARY = [
  [
    /^chair_s(_|$)/,
    "lower",
    "CHAIR by sentence: share of the answers that name at least one object that is not in the image.",
  ],
  [
    /^chair_i(_|$)/,
    "lower",
    "CHAIR by mention: of all mentions of objects, the share whose object is not in the image.",
  ],
  [/^chair(_|$)/, "lower", "CHAIR: of all objects that are named, the share that is not in the image."],
  [/^hal(_|$)/, "lower", "Share of the answers with at least one invention."],
  [/^hallucinat.*(percent|rate)/, "lower", "Share of the answers with at least one invention."],
  [
    /^cog(_|$)/,
    "lower",
    "Share of the annotated traps, objects that are typical of such a scene but absent, that are mentioned.",
  ],
  [/^recall/, "higher", "Share of the objects in the image (or of the questions whose answer is yes) that is found."],
  [/^cover/, "higher", "Share of the objects in the image that is mentioned."],
  [/^precision/, "higher", "Share of the positive answers (or of the mentioned objects) that is correct."],
  [/f1/, "higher", "F1: harmonic mean of precision and recall."],
  [/accuracy|(^|_)acc(_|$)/, "higher", "Share of correct answers."],
  [
    /^d_prime/,
    "higher",
    "How well present and absent objects are separated, regardless of a bias towards one answer.",
  ],
  [
    /^(score|amber|perception|cognition|hallucination)/,
    "higher",
    "A sum or mean of other metrics, as defined by the benchmark.",
  ],
  [/^yes_/, null, "Share of the answer yes. A shift towards one answer can look like a gain."],
  [/^no_/, null, "Share of the answer no."],
  [/^unknown/, "lower", "Answers in which the parser finds neither yes nor no."],
  [/^words/, null, "Mean number of words per answer. Short answers have less room for hallucinations."],
  [/^tokens/, null, "Mean number of tokens per answer."],
  [/^repe(tition|ated)/, "lower", "Share of four-word n-grams that occurred before in the same answer."],
  [/^empty/, "lower", "Share of empty answers."],
  [/^at_limit/, "lower", "Share of the answers that were cut at the token limit."],
  [/^changed/, null, "Share of the answers that differ from the baseline's by at least one character."],
  [/^active/, null, "Share of the answers in which an intervention was active."],
];

function known(metric) {
  const entry = GLOSSARY.find(([pattern]) => pattern.test(metric));
  return entry ? { better: entry[1], meaning: entry[2] } : { better: null, meaning: null };
}

const metricName = (metric) =>
  metric
    .replace(/_percent$/, ", %")
    .replaceAll("_", " ")
    .replace(/^d prime/, "d\u2032")
    .replace(/^(chair|f1)\b/i, (word) => word.toUpperCase());
const betterNote = (metric) => ({ lower: "lower is better", higher: "higher is better" })[known(metric).better] ?? null;

// Decimal places: fewer for percentages, counts and large numbers than for shares of 0 to 1.
function digitsOf(metric, rows) {
  if (/_percent$|^(words|tokens|unknown)/.test(metric)) return 1;
  const cells = rows.flatMap((row) => Object.values(row ?? {}));
  const largest = Math.max(0, ...cells.map((cell) => Math.abs(cell?.value ?? 0)));
  return largest <= 1 ? 3 : largest < 10 ? 2 : 1;
}

// How to mark a difference: its sign, and whether it is significant.
function verdict(difference, metric) {
  const defined = difference && difference.low !== null && difference.low !== undefined;
  const apart = Boolean(defined && (difference.low > 0 || difference.high < 0));
  const sure = apart && difference.holm !== null && difference.holm !== undefined && difference.holm < 0.05;
  const way = known(metric).better;
  const higher = Boolean(difference && difference.value > 0);
  const tone = !apart || !way ? "" : (way === "higher") === higher ? "better" : "worse";
  return { apart, sure, tone, mark: sure ? "**" : apart ? "*" : "", word: tone || (higher ? "higher" : "lower") };
}

function readingOf(difference, metric) {
  if (!difference) return "baseline";
  if (difference.value === null || difference.value === undefined) return "not defined";
  if (difference.low === null || difference.low === undefined) return "no interval";
  if (difference.value === 0 && difference.low === 0 && difference.high === 0) return "no difference";
  const found = verdict(difference, metric);
  if (found.sure) return found.word;
  return found.apart ? `${found.word}, but not after Holm's correction` : "not significant";
}
