// Small figures: intervals, bars and shares. Positions are percentages of the width, so figures follow the window.

// An axis over values and 0, with round ticks.
function axisOf(values, margin = 0.06) {
  const finite = values.filter((value) => value !== null && value !== undefined);
  let low = Math.min(0, ...finite);
  let high = Math.max(0, ...finite);
  if (low === high) [low, high] = [-1, 1];
  const step = roundStep((high - low) / 4);
  const span = high - low;
  if (low < 0) low -= margin * span;
  if (high > 0) high += margin * span;
  const ticks = [];
  for (let index = Math.ceil(low / step); index <= Math.floor(high / step); index++) ticks.push(index * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { ticks, digits, position: (value) => `${(100 * (value - low)) / (high - low)}%` };
}

function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * (1 - 1e-9));
}

function gridLines(axis) {
  return axis.ticks.map((tick) =>
    draw("line", {
      class: tick === 0 ? "zero" : "grid",
      x1: axis.position(tick),
      x2: axis.position(tick),
      y1: 0,
      y2: "100%",
    }),
  );
}

function axisFigure(axis) {
  const texts = axis.ticks.map((tick) =>
    draw("text", { x: axis.position(tick), y: 14, "text-anchor": "middle" }, signed(tick, axis.digits)),
  );
  return draw("svg", { class: "figure axis", "aria-hidden": "true" }, texts);
}

// A difference with its interval: a full dot where the interval excludes 0.
function intervalFigure(difference, metric, axis) {
  const parts = gridLines(axis);
  const found = verdict(difference, metric);
  if (difference && difference.value !== null && difference.value !== undefined) {
    if (difference.low !== null && difference.low !== undefined) {
      const ends = { x1: axis.position(difference.low), x2: axis.position(difference.high) };
      parts.push(draw("line", { class: "interval", ...ends, y1: "50%", y2: "50%" }));
      for (const end of Object.values(ends))
        parts.push(draw("line", { class: "interval", x1: end, x2: end, y1: "34%", y2: "66%" }));
    }
    parts.push(
      draw("circle", { class: found.apart ? "dot" : "dot open", cx: axis.position(difference.value), cy: "50%", r: 4.5 }),
    );
  }
  return draw("svg", { class: `figure interval-figure ${found.tone}`, "aria-hidden": "true" }, parts);
}

// Differences of all arms for one metric, a row an arm.
function forest(scores, row, metric, digits) {
  const rivals = scores.arms.filter((arm) => row[arm]?.difference);
  const axis = axisOf(rivals.flatMap((arm) => ["value", "low", "high"].map((name) => row[arm].difference[name])));
  const lines = rivals.map((arm) => {
    const difference = row[arm].difference;
    return make(
      "div",
      { class: "forest-row" },
      make("div", { class: "forest-arm" }, armHead(arm)),
      intervalFigure(difference, metric, axis),
      make(
        "div",
        { class: `forest-number ${verdict(difference, metric).tone}` },
        differenceText(difference, metric, digits),
      ),
    );
  });
  const way = known(metric).better;
  const ends =
    way === "lower"
      ? ["\u2190 better", "worse \u2192"]
      : way
        ? ["\u2190 worse", "better \u2192"]
        : ["\u2190 lower", "higher \u2192"];
  return make(
    "div",
    { class: "forest" },
    lines,
    make("div", { class: "forest-row forest-foot" }, make("div"), axisFigure(axis), make("div")),
    make(
      "div",
      { class: "forest-row forest-foot" },
      make("div"),
      make(
        "div",
        { class: "ends" },
        ends.map((end) => make("span", {}, end)),
      ),
      make("div"),
    ),
  );
}

function differenceText(difference, metric, digits) {
  if (!difference || difference.value === null || difference.value === undefined) return "-";
  const mark = verdict(difference, metric).mark;
  const interval =
    difference.low === null || difference.low === undefined
      ? ""
      : ` [${signed(difference.low, digits)}, ${signed(difference.high, digits)}]`;
  return signed(difference.value, digits) + interval + (mark && ` ${mark}`);
}

// A bar from 0 with an interval.
function barFigure(value, low, high, most, kind) {
  const share = (number) => `${Math.min(100, (100 * number) / most)}%`;
  const parts = [draw("rect", { class: "bar", x: 0, y: "22%", width: share(value ?? 0), height: "56%" })];
  if (low !== null && low !== undefined) {
    parts.push(draw("line", { class: "whisker", x1: share(low), x2: share(high), y1: "50%", y2: "50%" }));
    for (const end of [low, high])
      parts.push(draw("line", { class: "whisker", x1: share(end), x2: share(end), y1: "30%", y2: "70%" }));
  }
  return draw("svg", { class: `figure bar-figure ${kind}`, "aria-hidden": "true" }, parts);
}

// Shares of yes, no and neither, side by side.
function shareFigure(shares) {
  let start = 0;
  const parts = shares.map(([name, percent]) => {
    const part = draw("rect", { class: `share-${name}`, x: `${start}%`, y: 0, width: `${percent}%`, height: "100%" });
    start += percent;
    return part;
  });
  return draw("svg", { class: "figure share-figure", "aria-hidden": "true" }, parts);
}

const armColour = (scores, arm) => `arm-${scores.arms.indexOf(arm) % 8}`;
