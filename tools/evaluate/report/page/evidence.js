// What lies behind the scores: invented objects, activity of the interventions, and cost.

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
  const most = Math.max(
    ...shown.flatMap(([, rows]) => Object.values(rows).map((row) => row.high ?? row.rate_percent ?? 0)),
    1e-9,
  );
  const bodies = shown.map(([object, rows]) =>
    make(
      "tbody",
      {},
      arms.map((arm, index) => {
        const row = rows[arm] ?? {
          mentions: 0,
          answers: 0,
          rate_percent: 0,
          low: null,
          high: null,
          cooccurring: {},
          samples: [],
        };
        const cooccurring = Object.entries(row.cooccurring)
          .slice(0, 3)
          .map(([name, count]) => `${name} (${count})`)
          .join(", ");
        const interval =
          row.low === null || row.low === undefined
            ? null
            : make("span", { class: "interval-text" }, `${fixed(row.low, 1)} to ${fixed(row.high, 1)}`);
        return make(
          "tr",
          {},
          index
            ? null
            : make(
                "th",
                { scope: "rowgroup", rowspan: arms.length, class: "first" },
                link(object, { object }, `samples in which ${object} is invented`),
              ),
          make("td", {}, armShort(arm)),
          make(
            "td",
            { class: "plot wide" },
            barFigure(row.rate_percent, row.low, row.high, most, armColour(benchmark.scores, arm)),
          ),
          make("td", { class: "number" }, make("b", {}, fixed(row.rate_percent, 1)), interval ? " " : null, interval),
          numeric(whole(row.mentions)),
          make(
            "td",
            { class: "number" },
            row.answers
              ? link(whole(row.answers), { object, arm, outcome: "invents" }, `answers of ${arm} that invent ${object}`)
              : "0",
          ),
          make("td", { class: "cooccurring" }, cooccurring || "-"),
        );
      }),
    ),
  );
  const heads = [
    ["object", "first"],
    ["arm", ""],
    ["rate", "plot"],
    ["rate, %", "number"],
    ["mentions", "number"],
    ["answers", "number"],
    ["objects in these images (answers)", ""],
  ];
  const element = scrollBox(
    "Invented objects",
    make(
      "table",
      { class: "objects" },
      make("caption", { class: "unseen" }, "Invented objects"),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)),
        ),
      ),
      bodies,
    ),
  );
  return { count: objects.length, element };
}

function activityTable(benchmark) {
  const scores = benchmark.scores;
  const activity = scores.activity ?? {};
  const lines = scores.arms.flatMap((arm) =>
    (activity[arm] ?? []).map((row, index) => {
      const idle = row.active === 0;
      const share = row.answers ? ` (${fixed((100 * (row.active ?? 0)) / row.answers, 0)} %)` : "";
      return make(
        "tr",
        {},
        rowHead(index ? "" : armHead(arm)),
        make("td", {}, make("code", {}, row.intervention)),
        make(
          "td",
          { class: "number" },
          `${whole(row.active)} of ${whole(row.answers)}${share}`,
          idle ? make("span", { class: "badge warn" }, "inactive") : null,
        ),
        ["rows", "heads", "moved", "to_image", "change", "token_change"].map((name) => numeric(shortly(row[name]))),
      );
    }),
  );
  if (!lines.length) return make("p", { class: "note" }, "No arm has an intervention that reports what it did.");
  const columns = [
    "arm",
    { text: "intervention", kind: "" },
    "active in answers",
    { text: "rows", note: "edited" },
    { text: "heads", note: "edited" },
    { text: "attention moved", note: "mass, summed" },
    { text: "of it to the image", note: "negative: away" },
    { text: "change of scores", note: "attention, largest" },
    { text: "change of logits", note: "next token, largest" },
  ];
  return [
    table("Activity of the interventions", columns, lines),
    make(
      "p",
      { class: "note" },
      "Means over the answers, recorded during generation. An inactive intervention has the baseline\u2019s scores and is not evidence.",
    ),
  ];
}

const megabyteDigits = (mb) => (mb < 10 ? 2 : mb < 100 ? 1 : 0);

function costTable(benchmark) {
  const costs = benchmark.costs;
  if (!costs) return make("p", { class: "note" }, "Cost was not measured in this run.");
  const arms = [
    ...benchmark.scores.arms.filter((arm) => costs.arms[arm]),
    ...Object.keys(costs.arms).filter((arm) => !benchmark.scores.arms.includes(arm)),
  ];
  const ratio = (found) => {
    if (found === null || found === undefined) return null;
    const text = Array.isArray(found)
      ? `\u00d7${fixed(found[1], 2)} (${fixed(found[0], 2)}\u2013${fixed(found[2], 2)})`
      : `\u00d7${fixed(found, 2)}`;
    return make("div", { class: "fine" }, text);
  };
  const kinds = [
    ["prompt_ms", "prompt", 1],
    ["token_ms", "token", 2],
    ["tokens_per_second", "tokens_per_second", 1],
    ["mb", "mb", 0],
  ];
  const lines = arms.map((arm, index) =>
    make(
      "tr",
      {},
      rowHead(armHead(arm)),
      kinds.map(([name, key, digits]) =>
        make(
          "td",
          { class: "number" },
          make("b", {}, fixed(costs.arms[arm][name], name === "mb" ? megabyteDigits(costs.arms[arm].mb) : digits)),
          index ? ratio(costs.arms[arm].ratio?.[key]) : null,
        ),
      ),
    ),
  );
  return [
    table(
      "Cost",
      [
        "arm",
        { text: "prompt", note: "ms" },
        { text: "new token", note: "ms" },
        { text: "tokens per second" },
        { text: "memory", note: "MB" },
      ],
      lines,
      "scores",
    ),
    make(
      "p",
      { class: "note" },
      `On ${costs.device}, ${counted(costs.samples, "sample")}, ${counted(costs.new_tokens, "new token")} each. Below each figure: ratio to `,
      armName(arms[0]),
      ", the median of turns side by side in one run (quartiles).",
    ),
  ];
}
