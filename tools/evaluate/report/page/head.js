// The head: what was run, what to beware of, and the answer in short.

function drawHead() {
  document.title = DATA.title;
  const arms = [...new Set(DATA.benchmarks.flatMap((benchmark) => benchmark.scores.arms))];
  const facts = [];
  const first = DATA.benchmarks[0].scores;
  const model = DATA.settings.model ?? first.settings?.[first.baseline]?.model;
  if (model) facts.push(["model", String(model)]);
  for (const { name, scores } of DATA.benchmarks) {
    facts.push([
      name,
      `${counted(scores.paired, "sample")} about ${counted(scores.images, "image")}${scores.paired < scores.samples ? `, of ${whole(scores.samples)}` : ""}`,
    ]);
  }
  facts.push(["arms", `${arms.length}: ${arms.join("; ")}`]);
  facts.push([
    "versions",
    Object.entries(DATA.versions)
      .map((pair) => pair.join(" "))
      .join(", ") || "-",
  ]);
  const listOf = (entries) =>
    make(
      "dl",
      { class: "facts" },
      entries.map(([name, value]) => [
        make("dt", {}, name),
        make("dd", {}, make("code", {}, typeof value === "string" ? value : JSON.stringify(value))),
      ]),
    );
  const settings = Object.entries(DATA.settings);
  const ofArms = DATA.benchmarks
    .filter(({ scores }) => scores.settings)
    .map(({ name, scores }) => [make("h3", {}, `${name}, by arm`), listOf(Object.entries(scores.settings))]);
  const parts = [
    make("p", { class: "kicker" }, "Regard \u00b7 evaluation of attention fixes on the same samples"),
    make("h1", {}, DATA.title),
    drawWarnings(),
    drawLeftOut(),
    section(
      "short",
      "Summary",
      overview(DATA.benchmarks, benchmarkLink),
      make(
        "p",
        { class: "note" },
        "The headline metric of each benchmark. \u201cChanged\u201d: share of answers that differ from the baseline\u2019s. Filled dots: the interval excludes 0 (dashed line).",
      ),
    ),
    section(
      "run",
      "Settings of the run",
      make(
        "dl",
        { class: "facts" },
        facts.map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]),
      ),
      make(
        "details",
        {},
        make("summary", {}, "All settings"),
        settings.length ? listOf(settings) : make("p", { class: "note" }, "No settings."),
        ofArms,
      ),
    ),
  ];
  document.getElementById("head").append(...parts.filter(Boolean));
}

function drawWarnings() {
  const byArm = new Map();
  for (const { name, scores } of DATA.benchmarks) {
    for (const warning of scores.warnings) {
      const where = [DATA.benchmarks.length > 1 ? name : null, warning.part].filter(Boolean).join(", ");
      const key = warning.arm ?? "";
      byArm.set(key, [...(byArm.get(key) ?? []), [where, warning.text]]);
    }
  }
  if (!byArm.size) return make("p", { class: "all-clear", id: "warnings", tabindex: -1 }, "No warnings.");
  const total = [...byArm.values()].reduce((sum, own) => sum + own.length, 0);
  const blocks = [...byArm].map(([arm, own]) =>
    make(
      "details",
      { open: total <= 12 },
      make(
        "summary",
        {},
        arm ? armName(arm) : "all arms",
        ` \u00b7 ${counted(own.length, "warning")}`,
        make("span", { class: "preview", "aria-hidden": "true" }, own[0].filter(Boolean).join(": ")),
      ),
      make(
        "ul",
        {},
        own.map(([where, text]) => make("li", {}, where ? make("b", {}, `${where}: `) : null, text)),
      ),
    ),
  );
  return make(
    "section",
    { class: "warnings", "aria-labelledby": "warnings" },
    make("h2", { id: "warnings", tabindex: -1 }, `Read these first: ${counted(total, "warning")}`),
    blocks,
  );
}

function drawLeftOut() {
  const lists = DATA.benchmarks
    .map(({ name, scores }) => [name, scores.skipped_images ?? []])
    .filter(([, images]) => images.length);
  if (!lists.length) return null;
  const samplesOf = (one) => (Array.isArray(one.samples) ? one.samples.length : (one.samples ?? 0));
  const total = lists.reduce((sum, [, images]) => sum + images.length, 0);
  const lost = lists.reduce((sum, [, images]) => sum + images.reduce((own, one) => own + samplesOf(one), 0), 0);
  const shown = (images) =>
    images.map((one) =>
      make("li", {}, make("code", {}, one.image), `: ${one.reason} (${counted(samplesOf(one), "sample")})`),
    );
  return make(
    "section",
    { class: "left-out", "aria-label": "Skipped images" },
    make(
      "details",
      { open: total <= 5 },
      make("summary", {}, `${counted(total, "image")} skipped, with ${counted(lost, "sample")}, for all arms`),
      lists.map(([name, images]) => [
        lists.length > 1 || DATA.benchmarks.length > 1 ? make("h3", {}, name) : null,
        make("ul", {}, shown(images)),
      ]),
    ),
  );
}
