// Tables of scores, and of what a gain may hide.

const wholePart = (scores) => scores.parts.find((part) => part.kind === "pooled") ?? scores.parts[0];
const partName = (part) => ({ pooled: "all parts pooled", mean: "mean of the parts" })[part.kind] ?? part.part;
const warningsOf = (benchmark, arm) => benchmark.scores.warnings.filter((warning) => warning.arm === arm);

function scoreCell(cell, metric, digits) {
  if (!cell || cell.value === null || cell.value === undefined) return numeric("-");
  const interval =
    cell.low === null || cell.low === undefined
      ? null
      : make("span", { class: "interval-text" }, `${fixed(cell.low, digits)} to ${fixed(cell.high, digits)}`);
  const lines = [make("div", {}, make("b", {}, fixed(cell.value, digits)), interval ? " " : null, interval)];
  const difference = cell.difference;
  if (difference) {
    lines.push(
      make(
        "div",
        { class: `difference ${verdict(difference, metric).tone}` },
        differenceText(difference, metric, digits),
      ),
    );
    if (difference.p !== null && difference.p !== undefined) {
      const adjusted =
        difference.holm === null || difference.holm === undefined ? "" : `, Holm ${pValue(difference.holm)}`;
      lines.push(make("div", { class: "fine" }, `p ${pValue(difference.p)}${adjusted}`));
    }
  }
  if (cell.undefined > 0)
    lines.push(make("div", { class: "fine" }, `undefined in ${shortly(100 * cell.undefined)} % of resamples`));
  return make("td", { class: "number score" }, lines);
}

// A table of arms by metrics; `rows` is metric -> arm -> cell.
function scoreTable(label, benchmark, rows, digits) {
  const scores = benchmark.scores;
  const metrics = Object.keys(rows).filter((metric) => rows[metric]);
  const columns = ["arm", ...metrics.map((metric) => ({ text: metricName(metric), note: betterNote(metric) }))];
  const body = scores.arms.map((arm) =>
    make(
      "tr",
      {},
      rowHead(armHead(arm), arm === scores.baseline ? make("small", {}, "baseline") : warningBadge(benchmark, arm)),
      metrics.map((metric) => scoreCell(rows[metric][arm], metric, digits(metric))),
    ),
  );
  return table(label, columns, body, "scores");
}

function warningBadge(benchmark, arm) {
  const count = warningsOf(benchmark, arm).length;
  return count
    ? make("a", { class: "badge warn", href: "#warnings", onclick: jump("warnings") }, counted(count, "warning"))
    : null;
}

function glossary(metrics) {
  const entries = metrics.filter((metric) => known(metric).meaning);
  if (!entries.length) return null;
  return make(
    "details",
    { class: "glossary" },
    make("summary", {}, "How to read these figures"),
    make(
      "dl",
      {},
      entries.map((metric) => [make("dt", {}, metricName(metric)), make("dd", {}, known(metric).meaning)]),
    ),
  );
}

function legend(scores) {
  return make(
    "p",
    { class: "note" },
    `Each cell: value, and the interval that holds ${100 * scores.level} % of ${whole(scores.resamples)} resamples of images (seed ${scores.seed}); ` +
      "all samples about an image are resampled together. Below it the difference to ",
    armName(scores.baseline),
    " [its interval] on the same samples, and p. ",
    make("b", {}, "*"),
    " the interval excludes 0; ",
    make("b", {}, "**"),
    " and p stays below 0.05 after Holm\u2019s correction for the number of arms.",
  );
}

// One line an arm: what a reader in a hurry wants to know.
function overview(benchmarks, link) {
  const bodies = benchmarks.map((benchmark) => {
    const scores = benchmark.scores;
    const part = wholePart(scores);
    const [parser, found] = Object.entries(part.parsers)[0];
    const metric = Object.keys(found.metrics)[0];
    const row = found.metrics[metric];
    const digits = digitsOf(metric, [row]);
    const axis = axisOf(
      scores.arms.flatMap((arm) => ["value", "low", "high"].map((name) => row[arm]?.difference?.[name])),
    );
    const where = [metricName(metric), scores.parts.length > 1 ? partName(part) : null, parser, betterNote(metric)]
      .filter(Boolean)
      .join(" \u00b7 ");
    const title = make(
      "tr",
      { class: "group" },
      make("th", { colspan: 7, scope: "rowgroup" }, link(benchmark.name), " ", make("small", {}, where)),
    );
    const lines = scores.arms.map((arm) => {
      const cell = row[arm] ?? {};
      const tone = verdict(cell.difference, metric).tone;
      const changed = part.text?.changed_percent?.[arm]?.value;
      const interval =
        cell.low === null || cell.low === undefined
          ? null
          : make("span", { class: "interval-text" }, `${fixed(cell.low, digits)} to ${fixed(cell.high, digits)}`);
      return make(
        "tr",
        {},
        rowHead(armHead(arm)),
        make("td", { class: "number" }, make("b", {}, fixed(cell.value, digits)), " ", interval),
        make("td", { class: "plot" }, cell.difference ? intervalFigure(cell.difference, metric, axis) : null),
        make("td", { class: `number ${tone}` }, cell.difference ? differenceText(cell.difference, metric, digits) : ""),
        make("td", { class: `reading ${tone}` }, readingOf(cell.difference, metric)),
        numeric(arm === scores.baseline ? "" : fixed(changed, 1)),
        make("td", {}, warningBadge(benchmark, arm)),
      );
    });
    return make("tbody", {}, title, lines);
  });
  const heads = [
    ["arm", "first"],
    ["value", "number"],
    ["difference to the baseline", "plot"],
    ["", "number"],
    ["reading", ""],
    ["changed, %", "number"],
    ["", ""],
  ];
  return scrollBox(
    "Summary",
    make(
      "table",
      { class: "overview" },
      make("caption", { class: "unseen" }, "Summary: the headline metric of every benchmark"),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map(([text, kind]) => make(text ? "th" : "td", { class: kind, scope: text ? "col" : null }, text)),
        ),
      ),
      bodies,
    ),
  );
}

function mcnemarTable(benchmark, rows, part, link) {
  const scores = benchmark.scores;
  const inside = part.kind === "part" && scores.parts.length > 1 ? part.part : null;
  const lines = scores.arms
    .filter((arm) => rows[arm])
    .map((arm) => {
      const row = rows[arm];
      return make(
        "tr",
        {},
        rowHead(armHead(arm)),
        make(
          "td",
          { class: "number" },
          link(whole(row.gained), { arm, outcome: "gained", in: inside }, `samples that ${arm} gained`),
        ),
        make(
          "td",
          { class: "number" },
          link(whole(row.lost), { arm, outcome: "lost", in: inside }, `samples that ${arm} lost`),
        ),
        numeric(pValue(row.p)),
        numeric(pValue(row.holm)),
      );
    });
  return [
    make("h3", {}, "Paired correctness"),
    table("McNemar\u2019s test", ["arm", "gained", "lost", "p", "Holm"], lines),
    make(
      "p",
      { class: "note" },
      "Gained: correct where the baseline is wrong; lost: the reverse. p by McNemar\u2019s exact test, which assumes " +
        "independent samples; if images have several samples, rely on the intervals above.",
    ),
  ];
}

function parsedTable(benchmark, parsed) {
  const scores = benchmark.scores;
  const words = ["yes", "no", "unknown"];
  const lines = scores.arms
    .filter((arm) => parsed.yes_percent[arm])
    .map((arm) =>
      make(
        "tr",
        {},
        rowHead(armHead(arm)),
        make(
          "td",
          { class: "plot" },
          shareFigure(words.map((word) => [word, parsed[`${word}_percent`][arm]?.value ?? 0])),
        ),
        words.map((word) => scoreCell(parsed[`${word}_percent`][arm], "", 1)),
      ),
    );
  const columns = [
    "arm",
    { text: "shares", kind: "plot" },
    ...words.map((word) => ({ text: make("span", { class: `key key-${word}` }, `${word}, %`) })),
  ];
  return [
    make("h3", {}, "Yes, no and unknown"),
    table("Shares of yes and no", columns, lines, "scores"),
    make(
      "p",
      { class: "note" },
      "Answers as read by the parser. An arm that merely answers no more often gains wherever the baseline answers yes too often.",
    ),
  ];
}
