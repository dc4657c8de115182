// Tables of scores, of what a gain may hide, of invented objects, of activity and of cost.

const wholePart = (scores) => scores.parts.find((part) => part.kind === "pooled") ?? scores.parts[0];
const partName = (part) => ({ pooled: "all parts pooled", mean: "mean of the parts" })[part.kind] ?? part.part;
const warningsOf = (benchmark, arm) => benchmark.scores.warnings.filter((warning) => warning.arm === arm);

function scoreCell(cell, metric, digits) {
  if (!cell || cell.value === null || cell.value === undefined) return numeric("-");
  const interval = cell.low === null || cell.low === undefined ? null
    : make("span", { class: "interval-text" }, `${fixed(cell.low, digits)} to ${fixed(cell.high, digits)}`);
  const lines = [make("div", {}, make("b", {}, fixed(cell.value, digits)), interval ? " " : null, interval)];
  const difference = cell.difference;
  if (difference) {
    lines.push(make("div", { class: `difference ${verdict(difference, metric).tone}` }, differenceText(difference, metric, digits)));
    if (difference.p !== null && difference.p !== undefined) {
      const adjusted = difference.holm === null || difference.holm === undefined ? "" : `, Holm ${chance(difference.holm)}`;
      lines.push(make("div", { class: "fine" }, `p ${chance(difference.p)}${adjusted}`));
    }
  }
  if (cell.undefined > 0) lines.push(make("div", { class: "fine" }, `undefined in ${shortly(100 * cell.undefined)} % of resamples`));
  return make("td", { class: "number score" }, lines);
}

// A table of arms by metrics; `rows` is metric -> arm -> cell.
function scoreTable(label, benchmark, rows, digits) {
  const scores = benchmark.scores;
  const metrics = Object.keys(rows).filter((metric) => rows[metric]);
  const columns = ["arm", ...metrics.map((metric) => ({ text: metricName(metric), note: betterNote(metric) }))];
  const body = scores.arms.map((arm) => make("tr", {},
    rowHead(armName(arm), arm === scores.baseline ? make("small", {}, "baseline") : warningBadge(benchmark, arm)),
    metrics.map((metric) => scoreCell(rows[metric][arm], metric, digits(metric)))));
  return table(label, columns, body, "scores");
}

function warningBadge(benchmark, arm) {
  const count = warningsOf(benchmark, arm).length;
  return count ? make("a", { class: "badge warn", href: "#warnings", onclick: jump("warnings") }, counted(count, "warning")) : null;
}

function glossary(metrics) {
  const entries = metrics.filter((metric) => known(metric).says);
  if (!entries.length) return null;
  return make("details", { class: "glossary" }, make("summary", {}, "What these figures say"),
    make("dl", {}, entries.map((metric) => [make("dt", {}, metricName(metric)), make("dd", {}, known(metric).says)])));
}

function legend(scores) {
  return make("p", { class: "note" },
    `Each cell: value, and the interval that holds ${100 * scores.level} % of ${whole(scores.resamples)} resamples of images (seed ${scores.seed}); `
    + "all questions about an image are drawn together. Below it the difference to ", armName(scores.baseline),
    " [its interval] on the same samples, and p. ", make("b", {}, "*"), " the interval excludes 0; ",
    make("b", {}, "**"), " and p stays below 0.05 after Holm\u2019s correction for the number of arms.");
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
    const axis = axisOf(scores.arms.flatMap((arm) => ["value", "low", "high"].map((name) => row[arm]?.difference?.[name])));
    const where = [metricName(metric), scores.parts.length > 1 ? partName(part) : null, parser, betterNote(metric)].filter(Boolean).join(" \u00b7 ");
    const title = make("tr", { class: "group" }, make("th", { colspan: 7, scope: "rowgroup" },
      link(benchmark.name), " ", make("small", {}, where)));
    const lines = scores.arms.map((arm) => {
      const cell = row[arm] ?? {};
      const tone = verdict(cell.difference, metric).tone;
      const changed = part.text?.changed_percent?.[arm]?.value;
      const interval = cell.low === null || cell.low === undefined ? null
        : make("span", { class: "interval-text" }, `${fixed(cell.low, digits)} to ${fixed(cell.high, digits)}`);
      return make("tr", {}, rowHead(armName(arm)),
        make("td", { class: "number" }, make("b", {}, fixed(cell.value, digits)), " ", interval),
        make("td", { class: "plot" }, cell.difference ? intervalFigure(cell.difference, metric, axis) : null),
        make("td", { class: `number ${tone}` }, cell.difference ? differenceText(cell.difference, metric, digits) : ""),
        make("td", { class: `reading ${tone}` }, readingOf(cell.difference, metric)),
        numeric(arm === scores.baseline ? "" : fixed(changed, 1)),
        make("td", {}, warningBadge(benchmark, arm)));
    });
    return make("tbody", {}, title, lines);
  });
  const heads = [["arm", "first"], ["value", "number"], ["difference to the baseline", "plot"], ["", "number"], ["reading", ""], ["changed, %", "number"], ["", ""]];
  return scrollBox("In short", make("table", { class: "overview" }, make("caption", { class: "unseen" }, "In short: the headline metric of every benchmark"),
    make("thead", {}, make("tr", {}, heads.map(([text, kind]) => make(text ? "th" : "td", { class: kind, scope: text ? "col" : null }, text)))), bodies));
}

function mcnemarTable(benchmark, rows, part, link) {
  const scores = benchmark.scores;
  const inside = part.kind === "part" && scores.parts.length > 1 ? part.part : null;
  const lines = scores.arms.filter((arm) => rows[arm]).map((arm) => {
    const row = rows[arm];
    return make("tr", {}, rowHead(armName(arm)),
      make("td", { class: "number" }, link(whole(row.gained), { arm, outcome: "gained", in: inside }, `samples that ${arm} gained`)),
      make("td", { class: "number" }, link(whole(row.lost), { arm, outcome: "lost", in: inside }, `samples that ${arm} lost`)),
      numeric(chance(row.p)), numeric(chance(row.holm)));
  });
  return [make("h3", {}, "Right and wrong in pairs"),
    table("McNemar\u2019s test", ["arm", "gained", "lost", "p", "Holm"], lines),
    make("p", { class: "note" }, "Gained: right where the baseline is wrong; lost: the other way round. p by McNemar\u2019s exact test, which takes "
      + "every answer by itself; where images have several questions, trust the intervals above.")];
}

function saidTable(benchmark, said) {
  const scores = benchmark.scores;
  const words = ["yes", "no", "unknown"];
  const lines = scores.arms.filter((arm) => said[arm]).map((arm) => make("tr", {}, rowHead(armName(arm)),
    make("td", { class: "plot" }, shareFigure(words.map((word) => [word, said[arm][`${word}_percent`]?.value ?? 0]))),
    words.map((word) => scoreCell(said[arm][`${word}_percent`], "", 1))));
  const columns = ["arm", { text: "shares", kind: "plot" }, ...words.map((word) => ({ text: make("span", { class: `key key-${word}` }, `${word}, %`) }))];
  return [make("h3", {}, "What was said"), table("Shares of yes and no", columns, lines, "scores"),
    make("p", { class: "note" }, "As the parser reads the answers. An arm that merely says no more often gains wherever the baseline says yes too often.")];
}

// Objects that are named and not there, most mentions first.
function objectTable(benchmark, parser, arms, showAll, link) {
  const tables = benchmark.scores.objects[parser] ?? {};
  const found = new Map();
  for (const arm of arms) {
    for (const row of tables[arm] ?? []) {
      if (!found.has(row.object)) found.set(row.object, {});
      found.get(row.object)[arm] = row;
    }
  }
  const mentions = (rows) => Math.max(...Object.values(rows).map((row) => row.mentions));
  const objects = [...found].sort((one, other) => mentions(other[1]) - mentions(one[1]));
  if (!objects.length) return { count: 0, element: null };
  const shown = showAll ? objects : objects.slice(0, 12);
  const most = Math.max(...shown.flatMap(([, rows]) => Object.values(rows).map((row) => row.high ?? row.rate_percent ?? 0)), 1e-9);
  const bodies = shown.map(([object, rows]) => make("tbody", {}, arms.map((arm, index) => {
    const row = rows[arm] ?? { mentions: 0, answers: 0, rate_percent: 0, low: null, high: null, beside: {}, samples: [] };
    const beside = Object.entries(row.beside).slice(0, 3).map(([name, count]) => `${name} (${count})`).join(", ");
    const interval = row.low === null || row.low === undefined ? null : make("span", { class: "interval-text" }, `${fixed(row.low, 1)} to ${fixed(row.high, 1)}`);
    return make("tr", {},
      index ? null : make("th", { scope: "rowgroup", rowspan: arms.length, class: "first" }, link(object, { object }, `samples in which ${object} is invented`)),
      make("td", {}, armName(arm)),
      make("td", { class: "plot wide" }, barFigure(row.rate_percent, row.low, row.high, most, armColour(benchmark.scores, arm))),
      make("td", { class: "number" }, make("b", {}, fixed(row.rate_percent, 1)), interval ? " " : null, interval),
      numeric(whole(row.mentions)),
      make("td", { class: "number" }, row.answers ? link(whole(row.answers), { object, arm, outcome: "invents" }, `answers of ${arm} that invent ${object}`) : "0"),
      make("td", { class: "beside" }, beside || "-"));
  })));
  const heads = [["object", "first"], ["arm", ""], ["rate", "plot"], ["rate, %", "number"], ["mentions", "number"], ["answers", "number"], ["stands beside (answers)", ""]];
  const element = scrollBox("Invented objects", make("table", { class: "objects" }, make("caption", { class: "unseen" }, "Invented objects"),
    make("thead", {}, make("tr", {}, heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)))), bodies));
  return { count: objects.length, element };
}

function activityTable(benchmark) {
  const scores = benchmark.scores;
  const activity = scores.activity ?? {};
  const lines = scores.arms.flatMap((arm) => (activity[arm] ?? []).map((row, index) => {
    const idle = row.active === 0;
    const share = row.answers ? ` (${fixed((100 * (row.active ?? 0)) / row.answers, 0)} %)` : "";
    return make("tr", {}, rowHead(index ? "" : armName(arm)), make("td", {}, make("code", {}, row.method)),
      make("td", { class: "number" }, `${whole(row.active)} of ${whole(row.answers)}${share}`, idle ? make("span", { class: "badge warn" }, "did nothing") : null),
      ["rows", "heads", "moved", "to_image", "change", "word_change"].map((name) => numeric(shortly(row[name]))));
  }));
  if (!lines.length) return make("p", { class: "note" }, "No arm has a method that reports what it did.");
  const columns = ["arm", { text: "method", kind: "" }, "active in answers", { text: "rows", note: "edited" }, { text: "heads", note: "edited" },
    { text: "attention moved", note: "share, summed" }, { text: "of it to the image", note: "negative: away" }, { text: "change of scores", note: "attention, largest" },
    { text: "change of scores", note: "next word, largest" }];
  return [table("Activity of the methods", columns, lines),
    make("p", { class: "note" }, "Means over the answers, as the methods counted them while they worked. A method that was active nowhere has the baseline\u2019s figures, and proves nothing.")];
}

function costTable(benchmark) {
  const costs = benchmark.costs;
  if (!costs) return make("p", { class: "note" }, "Cost was not measured in this run.");
  const arms = [...benchmark.scores.arms.filter((arm) => costs.arms[arm]), ...Object.keys(costs.arms).filter((arm) => !benchmark.scores.arms.includes(arm))];
  const ratio = (found) => {
    if (found === null || found === undefined) return null;
    const text = Array.isArray(found) ? `\u00d7${fixed(found[1], 2)} (${fixed(found[0], 2)}\u2013${fixed(found[2], 2)})` : `\u00d7${fixed(found, 2)}`;
    return make("div", { class: "fine" }, text);
  };
  const kinds = [["prompt_ms", "prompt", 1], ["token_ms", "token", 2], ["tokens_per_second", "tokens_per_second", 1], ["mb", "mb", 0]];
  const lines = arms.map((arm, index) => make("tr", {}, rowHead(armName(arm)), kinds.map(([name, key, digits]) =>
    make("td", { class: "number" }, make("b", {}, fixed(costs.arms[arm][name], digits)), index ? ratio(costs.arms[arm].ratio?.[key]) : null))));
  return [table("Cost", ["arm", { text: "prompt", note: "ms" }, { text: "new token", note: "ms" }, { text: "tokens a second" }, { text: "memory", note: "MB" }], lines, "scores"),
    make("p", { class: "note" }, `On ${costs.device}, ${counted(costs.samples, "sample")}, ${counted(costs.new_tokens, "new token")} each. Below each figure: ratio to `,
      armName(arms[0]), ", the median of turns side by side in one run (lowest\u2013highest).")];
}
