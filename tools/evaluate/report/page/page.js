// The page: what is chosen (kept behind the # of the address), and a section for each kind of evidence.

const SCORE_KEYS = ["part", "parser", "metric", "against"];
const FILTER_KEYS = ["in", "arm", "outcome", "object", "text", "page"];
const byName = new Map(DATA.benchmarks.map((benchmark) => [benchmark.name, benchmark]));
let chosen = {};
let view = null;

// The address. Only what differs from the default is in it; what no longer fits counts as the default.

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(
    ["benchmark", ...SCORE_KEYS, ...FILTER_KEYS].filter((key) => given.get(key)).map((key) => [key, given.get(key)]),
  );
}

function addressOf(state) {
  return `#${new URLSearchParams(Object.entries(state).filter(([, value]) => value))}`;
}

function choose(patch, remember = false) {
  chosen = Object.fromEntries(Object.entries({ ...chosen, ...patch }).filter(([, value]) => value));
  const address = addressOf(chosen);
  if (address !== location.hash) history[remember ? "pushState" : "replaceState"](null, "", address);
  render();
}

// A link that chooses samples, or a benchmark; it can be copied as well.
function chooseLink(text, patch, label) {
  const state = {
    ...Object.fromEntries(Object.entries(chosen).filter(([key]) => !FILTER_KEYS.includes(key))),
    ...patch,
  };
  const follow = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose({ ...Object.fromEntries(FILTER_KEYS.map((key) => [key, null])), ...patch }, true);
    jumpTo("samples");
  };
  return make(
    "a",
    { href: addressOf(state), onclick: follow, "aria-label": label ? `${text}: show ${label}` : null },
    text,
  );
}

function benchmarkLink(name, attributes = {}) {
  const follow = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    chosen = {};
    choose({ benchmark: name }, true);
  };
  return make("a", { ...attributes, href: addressOf({ benchmark: name }), onclick: follow }, name);
}

function jumpTo(id) {
  const target = document.getElementById(id);
  target?.scrollIntoView({ block: "start" });
  target?.focus({ preventScroll: true });
}

function jump(id) {
  return (event) => {
    event.preventDefault();
    jumpTo(id);
  };
}

function section(id, title, ...children) {
  return make("section", { "aria-labelledby": id }, make("h2", { id, tabindex: -1 }, title), ...children);
}

function drawTabs(benchmark) {
  const tabs = DATA.benchmarks.map(({ name }) =>
    make("li", {}, benchmarkLink(name, { class: "tab", "aria-current": name === benchmark.name ? "page" : null })),
  );
  const sections = [
    ["scores", "Scores"],
    ["text-guards", "Text"],
    ["objects", "Objects"],
    ["activity", "Activity"],
    ["cost", "Cost"],
    ["samples", "Samples"],
  ];
  const jumps = sections.map(([id, text]) => make("li", {}, make("a", { href: `#${id}`, onclick: jump(id) }, text)));
  document
    .getElementById("tabs")
    .replaceChildren(make("ul", { class: "tabs" }, tabs), make("ul", { class: "jumps" }, jumps));
}

// A benchmark. What the pickers change is drawn into boxes of its own, so that they keep the focus.

function open(benchmark) {
  const { scores } = benchmark;
  view = {
    benchmark,
    scores: make("div"),
    objects: make("div"),
    cards: make("div", { class: "cards" }),
    text: make("div"),
    drawn: {},
    all: false,
  };
  view.pickers = drawPickers(benchmark);
  view.filters = drawFilters(benchmark);
  view.count = make("p", { class: "count", role: "status" });
  view.pages = make("nav", { class: "pages", "aria-label": "Pages of samples" });
  const rest =
    benchmark.samples.length < scores.paired
      ? `This report has ${whole(benchmark.samples.length)} of the ${whole(scores.paired)} scored samples, selected for inspection; rates are in the tables above.`
      : "This report has all scored samples.";
  document
    .getElementById("main")
    .replaceChildren(
      make("h2", { class: "benchmark-title" }, benchmark.name),
      section("scores", "Scores", make("div", { class: "controls" }, Object.values(view.pickers.all)), view.scores),
      section("text-guards", "Text statistics and caveats", view.text),
      section("objects", "Invented objects", view.objects),
      section("activity", "Activity of the interventions", activityTable(benchmark)),
      section("cost", "Cost", costTable(benchmark)),
      section(
        "samples",
        "Samples",
        make(
          "p",
          { class: "note" },
          `${rest} The address of this page contains the selection, so a copied link shows the same.`,
        ),
        make("div", { class: "controls filters", role: "search" }, Object.values(view.filters.all)),
        view.count,
        view.cards,
        view.pages,
      ),
    );
  drawTabs(benchmark);
}

function drawPickers({ scores }) {
  const part = picker(
    "Part",
    scores.parts.map((one) => [one.kind === "part" ? `part ${one.part}` : one.kind, partName(one)]),
    "",
    (value) => choose({ part: value }),
  );
  const parser = picker("Parser or mode", [], "", (value) => choose({ parser: value }));
  const metric = picker("Metric of the plot", [], "", (value) => choose({ metric: value }));
  return { all: { part, parser, metric }, part: part.lastChild, parser: parser.lastChild, metric: metric.lastChild };
}

function drawFilters(benchmark) {
  const set = (key) => (value) => choose({ [key]: value, page: null });
  const parts = [...new Set(benchmark.samples.map((sample) => sample.part))];
  const inside = picker("Part", [["", "all"], ...parts.map((part) => [part, part])], "", set("in"));
  const arm = picker("Arm", [["", "all"], ...benchmark.scores.arms.map((name) => [name, name])], "", set("arm"));
  const outcome = picker("Outcome", [], "", set("outcome"));
  const object = picker("Invented object", [], "", set("object"));
  let waiting = 0;
  const input = make("input", {
    type: "search",
    placeholder: "text in a question or answer",
    oninput: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => choose({ text: input.value, page: null }), 150);
    },
  });
  const text = make("label", { class: "control grow" }, make("span", {}, "Text"), input);
  const clear = make(
    "button",
    {
      type: "button",
      class: "clear",
      onclick: () => choose(Object.fromEntries(FILTER_KEYS.map((key) => [key, null]))),
    },
    "Clear",
  );
  const all = { in: parts.length > 1 ? inside : null, arm, outcome, object, text, clear };
  return {
    all: Object.fromEntries(Object.entries(all).filter(([, element]) => element)),
    in: inside.lastChild,
    arm: arm.lastChild,
    outcome: outcome.lastChild,
    object: object.lastChild,
    text: input,
  };
}

// What is chosen, where it fits; the defaults otherwise.
function settled() {
  const { scores, samples } = view.benchmark;
  const keyOf = (part) => (part.kind === "part" ? `part ${part.part}` : part.kind);
  const part = scores.parts.find((one) => keyOf(one) === chosen.part) ?? wholePart(scores);
  const parser = Object.hasOwn(part.parsers, chosen.parser ?? "") ? chosen.parser : Object.keys(part.parsers)[0];
  const metrics = Object.keys(part.parsers[parser].metrics);
  const among = (value, values) => (values.includes(value) ? value : "");
  return {
    part,
    partKey: keyOf(part),
    parser,
    metric: among(chosen.metric, metrics) || metrics[0],
    against: chosen.against,
    in: among(
      chosen.in,
      samples.map((sample) => sample.part),
    ),
    arm: among(chosen.arm, scores.arms),
    outcome: among(chosen.outcome, Object.keys(OUTCOMES)),
    object: chosen.object ?? "",
    text: chosen.text ?? "",
    page: Math.max(1, Number.parseInt(chosen.page, 10) || 1),
  };
}

function render() {
  const benchmark = byName.get(chosen.benchmark) ?? DATA.benchmarks[0];
  if (view?.benchmark !== benchmark) open(benchmark);
  const now = settled();
  const changed = (...keys) => keys.some((key) => view.drawn[key] !== now[key]);
  if (changed("partKey", "parser", "metric")) renderScores(now);
  if (changed("parser", "against") || view.drawn.all !== view.all) renderObjects(now);
  if (changed("parser", ...FILTER_KEYS)) renderSamples(now);
  view.drawn = { ...now, all: view.all };
}

function renderScores(now) {
  const { benchmark, pickers } = view;
  const { scores } = benchmark;
  const found = now.part.parsers[now.parser];
  const every = (metric) =>
    scores.parts.flatMap((part) => Object.values(part.parsers).map((parser) => parser.metrics[metric]));
  const digits = (metric) => digitsOf(metric, every(metric));
  pickers.part.value = now.partKey;
  fillPicker(
    pickers.parser,
    Object.keys(now.part.parsers).map((name) => [name, name]),
    now.parser,
  );
  fillPicker(
    pickers.metric,
    Object.keys(found.metrics).map((name) => [name, metricName(name)]),
    now.metric,
  );
  const where = `${partName(now.part)}, ${now.parser}: ${counted(now.part.samples, "sample")} about ${counted(now.part.images, "image")}`;
  const tables = [
    found.mcnemar && Object.keys(found.mcnemar).length
      ? make("div", {}, mcnemarTable(benchmark, found.mcnemar, now.part, chooseLink))
      : null,
  ];
  const plot =
    scores.arms.length > 1
      ? make(
          "div",
          {},
          make("h3", {}, `Difference in ${metricName(now.metric)}`),
          forest(scores, found.metrics[now.metric], now.metric, digits(now.metric)),
          make(
            "p",
            { class: "note" },
            `Against ${scores.baseline}, with ${100 * scores.level} % intervals. Filled dots: the interval excludes 0.`,
          ),
        )
      : null;
  refill(
    view.scores,
    make("p", { class: "where" }, where),
    scoreTable(`Scores, ${where}`, benchmark, found.metrics, digits),
    legend(scores),
    glossary(Object.keys(found.metrics)),
    make("div", { class: "pair" }, ...[plot, ...tables].filter(Boolean)),
  );
  const text = now.part.text;
  refill(
    view.text,
    make("p", { class: "where" }, where),
    ...(text
      ? [
          scoreTable("Text of the answers", benchmark, text, (metric) => digitsOf(metric, [text[metric]])),
          glossary(Object.keys(text)),
        ]
      : [make("p", { class: "note" }, "Text statistics exist for single parts and for all parts pooled; choose one above.")]),
    ...(found.parsed ? parsedTable(benchmark, found.parsed) : []),
  );
}

function renderObjects(now) {
  const { benchmark } = view;
  const { arms, baseline } = benchmark.scores;
  const rivals = arms.filter((arm) => arm !== baseline);
  const many = arms.length > 4;
  const against = rivals.includes(now.against) ? now.against : many ? rivals[0] : "";
  const { count, element } = objectTable(
    benchmark,
    now.parser,
    against ? [baseline, against] : arms,
    view.all,
    chooseLink,
  );
  const options = [...(many ? [] : [["", "all arms"]]), ...rivals.map((arm) => [arm, `${baseline} and ${arm}`])];
  const more =
    count > 12
      ? make(
          "button",
          {
            type: "button",
            onclick: () => {
              view.all = !view.all;
              render();
            },
          },
          view.all ? "Show the first 12" : `Show all ${count} objects`,
        )
      : null;
  const control =
    rivals.length > 1
      ? make(
          "div",
          { class: "controls" },
          picker("Arms", options, against, (value) => choose({ against: value })),
        )
      : null;
  const held = view.objects.contains(document.activeElement) ? document.activeElement.tagName : null;
  refill(
    view.objects,
    ...(element
      ? [
          control,
          element,
          more,
          make(
            "p",
            { class: "note" },
            `Objects that are mentioned but not in the image, under ${now.parser}. Rate: share of the answers that mention it, with its interval. ` +
              "\u201cObjects in these images\u201d: objects that are present where this one is invented, possible cues of the model. Names and counts link to the samples.",
          ),
        ].filter(Boolean)
      : [
          make(
            "p",
            { class: "note" },
            `With ${now.parser}, no arm names an object that is not there, or answers of this benchmark name none.`,
          ),
        ]),
  );
  if (held) view.objects.querySelector(held.toLowerCase())?.focus();
}

function renderSamples(now) {
  const { benchmark, filters } = view;
  const matching = chosenSamples(benchmark, now.parser, now);
  const pages = Math.max(1, Math.ceil(matching.length / PAGE));
  const page = Math.min(now.page, pages);
  const count = (patch) => chosenSamples(benchmark, now.parser, { ...now, ...patch }).length;
  for (const key of ["in", "arm"]) filters[key].value = now[key];
  if (filters.text.value !== now.text) filters.text.value = now.text;
  const outcomes = Object.entries(OUTCOMES)
    .map(([key, [text]]) => [key, text, count({ outcome: key })])
    .filter(([key, , number]) => number || key === now.outcome);
  fillPicker(
    filters.outcome,
    [["", "any"], ...outcomes.map(([key, text, number]) => [key, `${text} (${number})`])],
    now.outcome,
  );
  const names = new Set(
    benchmark.samples.flatMap((sample) => Object.values(sample.answers).flatMap((answer) => answer.invented)),
  );
  if (now.object) names.add(now.object);
  fillPicker(
    filters.object,
    [["", "any"], ...[...names].sort().map((name) => [name, `${name} (${count({ object: name })})`])],
    now.object,
  );
  const first = (page - 1) * PAGE;
  const shown = matching.slice(first, first + PAGE);
  view.count.textContent = matching.length
    ? `${first + 1} to ${first + shown.length} of ${counted(matching.length, "sample")} that match, of ${whole(benchmark.samples.length)} in this report`
    : `None of the ${whole(benchmark.samples.length)} samples in this report fits; clear a filter.`;
  refill(view.cards, ...shown.map((sample) => sampleCard(benchmark, sample, now.arm)));
  const turn = (text, to) =>
    make(
      "button",
      {
        type: "button",
        disabled: to < 1 || to > pages,
        onclick: () => {
          choose({ page: to > 1 ? String(to) : null }, true);
          jumpTo("samples");
        },
      },
      text,
    );
  refill(
    view.pages,
    ...(pages > 1
      ? [turn("Previous", page - 1), make("span", {}, `page ${page} of ${pages}`), turn("Next", page + 1)]
      : []),
  );
}

// Paper shows all that can be opened.
function openForPaper() {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    addEventListener(
      "afterprint",
      () => {
        details.open = false;
      },
      { once: true },
    );
  }
}

addEventListener("popstate", () => {
  chosen = readAddress();
  render();
});
addEventListener("hashchange", () => {
  chosen = readAddress();
  render();
});
addEventListener("beforeprint", openForPaper);
chosen = readAddress();
drawHead();
render();
document.getElementById("skip").addEventListener("click", jump("samples"));
document
  .getElementById("foot")
  .append(make("p", {}, "Made by regard evaluate. This file is self-contained: it loads and sends nothing."));
if (FILTER_KEYS.some((key) => chosen[key])) jumpTo("samples");
