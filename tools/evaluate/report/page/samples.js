// Samples: which are shown, and how answers are shown side by side.

const PAGE = 20;

const OUTCOMES = {
  gained: ["correct, baseline wrong (gained)", (own, base) => own.correct === true && base.correct === false],
  lost: ["wrong, baseline correct (lost)", (own, base) => own.correct === false && base.correct === true],
  all_wrong: ["all arms wrong", null],
  changed: ["text differs from the baseline", (own, base) => own.text !== base.text],
  invents: ["invents an object", (own) => own.invented.length > 0],
  fewer: ["invents fewer objects than the baseline", (own, base) => own.invented.length < base.invented.length],
  more: ["invents more objects than the baseline", (own, base) => own.invented.length > base.invented.length],
};

function armsIn(benchmark, sample) {
  return benchmark.scores.arms.filter((arm) => sample.answers[arm]);
}

function hasOutcome(benchmark, sample, outcome, arm) {
  const base = sample.answers[benchmark.scores.baseline];
  const everyone = armsIn(benchmark, sample);
  if (outcome === "all_wrong")
    return everyone.length > 0 && everyone.every((name) => sample.answers[name].correct === false);
  const asked = arm ? everyone.filter((name) => name === arm) : everyone;
  return asked.some((name) => base && OUTCOMES[outcome][1](sample.answers[name], base));
}

// Ids of the samples in which an arm invents each object, as the table of objects has them.
const listed = new WeakMap();

function idsOf(rows) {
  if (!listed.has(rows)) listed.set(rows, new Map(rows.map((row) => [row.object, new Set(row.samples)])));
  return listed.get(rows);
}

function inventsObject(benchmark, parser, sample, object, arm) {
  return (arm ? [arm] : benchmark.scores.arms).some((name) => {
    if (sample.answers[name]?.invented.includes(object)) return true;
    const rows = benchmark.scores.objects[parser]?.[name];
    return Boolean(rows && idsOf(rows).get(object)?.has(sample.id));
  });
}

const haystacks = new WeakMap();

function contains(sample, text) {
  if (!haystacks.has(sample)) {
    const answers = Object.values(sample.answers).flatMap((answer) => [answer.text, answer.parsed, ...answer.invented]);
    haystacks.set(sample, [sample.id, sample.question, sample.truth, ...answers].join("\n").toLowerCase());
  }
  return haystacks.get(sample).includes(text.toLowerCase());
}

function chosenSamples(benchmark, parser, filters) {
  return benchmark.samples.filter(
    (sample) =>
      (!filters.in || sample.part === filters.in) &&
      (!filters.outcome || hasOutcome(benchmark, sample, filters.outcome, filters.arm)) &&
      (!filters.object || inventsObject(benchmark, parser, sample, filters.object, filters.arm)) &&
      (!filters.text || contains(sample, filters.text)),
  );
}

// Words of any script, with what stands between them.
function segments(text) {
  if (!Intl.Segmenter) return text.match(/\s+|[^\s]+/g) ?? [];
  return [...new Intl.Segmenter("en", { granularity: "word" }).segment(text)].map((piece) => piece.segment);
}

// For each segment of a text whether it is missing in the other one (longest common subsequence).
function differing(own, other) {
  const flags = own.map(() => false);
  let start = 0;
  while (start < own.length && start < other.length && own[start] === other[start]) start++;
  let end = 0;
  while (
    end < own.length - start &&
    end < other.length - start &&
    own[own.length - 1 - end] === other[other.length - 1 - end]
  )
    end++;
  const left = own.slice(start, own.length - end);
  const right = other.slice(start, other.length - end);
  if (left.length * right.length > 4e6) {
    left.forEach((_, index) => {
      flags[start + index] = true;
    });
    return flags;
  }
  const width = right.length + 1;
  const common = new Uint16Array((left.length + 1) * width);
  for (let row = left.length - 1; row >= 0; row--) {
    for (let column = right.length - 1; column >= 0; column--) {
      common[row * width + column] =
        left[row] === right[column]
          ? common[(row + 1) * width + column + 1] + 1
          : Math.max(common[(row + 1) * width + column], common[row * width + column + 1]);
    }
  }
  for (let row = 0, column = 0; row < left.length; row++) {
    while (
      column < right.length &&
      left[row] !== right[column] &&
      common[row * width + column + 1] >= common[(row + 1) * width + column]
    )
      column++;
    if (column < right.length && left[row] === right[column]) column++;
    else flags[start + row] = true;
  }
  return flags;
}

// Where a text names an object, in singular or plural; a synonym of it is not found.
function namesOf(text, objects) {
  const found = [];
  for (const object of objects.filter((name) => name.trim())) {
    const name = object.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+");
    for (const match of text.matchAll(new RegExp(`(?<![\\p{L}\\p{N}])${name}(?:e?s)?(?![\\p{L}\\p{N}])`, "giu"))) {
      found.push([match.index, match.index + match[0].length]);
    }
  }
  return found;
}

// The text with inventions and changed words marked.
function answerText(answer, base) {
  if (!answer.text.trim()) return make("p", { class: "answer-text empty" }, "(empty answer)");
  const pieces = segments(answer.text);
  const changed = base ? differing(pieces, segments(base.text)) : pieces.map(() => false);
  const names = namesOf(answer.text, answer.invented);
  const runs = [];
  let position = 0;
  pieces.forEach((piece, index) => {
    const blank = !piece.trim();
    const differs = blank ? Boolean(changed[index - 1] && changed[index + 1]) : changed[index];
    const invented = names.some(([from, to]) => position >= from && position < to);
    const last = runs.at(-1);
    if (last && last.differs === differs && last.invented === invented) last.text += piece;
    else runs.push({ text: piece, differs, invented });
    position += piece.length;
  });
  return make(
    "p",
    { class: "answer-text", dir: "auto" },
    runs.map((run) => {
      const kind = [run.invented && "invented", run.differs && "differs"].filter(Boolean).join(" ");
      return kind ? make(run.invented ? "mark" : "span", { class: kind }, run.text) : run.text;
    }),
  );
}

// How many words of the baseline's answer are missing.
function missingWords(answer, base) {
  const words = segments(base.text);
  const gone = differing(words, segments(answer.text));
  return words.filter((word, index) => gone[index] && /[\p{L}\p{N}]/u.test(word)).length;
}

function imageButton(key, label, album, kind) {
  const uri = DATA.images[key];
  if (!uri) return make("span", { class: "no-image" }, "image missing");
  const position = album.length;
  album.push({ uri, label });
  return make(
    "button",
    {
      type: "button",
      class: `image ${kind}`,
      "aria-label": `Enlarge: ${label}`,
      onclick: () => openViewer(album, position),
    },
    make("img", { src: uri, alt: label, loading: "lazy", decoding: "async" }),
  );
}

// Arms with identical answers share a row.
function sampleCard(benchmark, sample, only) {
  const baseline = benchmark.scores.baseline;
  const base = sample.answers[baseline];
  const arms = armsIn(benchmark, sample).filter((arm) => !only || arm === only || arm === baseline);
  const groups = new Map();
  for (const arm of arms) {
    const answer = sample.answers[arm];
    const key = JSON.stringify([answer.text, answer.parsed, answer.correct, answer.invented]);
    groups.set(key, [...(groups.get(key) ?? []), arm]);
  }
  const album = [];
  const image =
    sample.image === null
      ? make("span", { class: "no-image" }, "no image")
      : imageButton(sample.image, `image of ${sample.id}`, album, "main");
  const rows = [...groups.values()].map((names) => {
    const answer = sample.answers[names[0]];
    const isBase = names.includes(baseline);
    const images = names.flatMap((arm) =>
      sample.answers[arm].attention.map((key, index, all) => {
        const label = `${arm}: attention${all.length > 1 ? ` ${index + 1} of ${all.length}` : ""}, ${sample.id}`;
        return make(
          "figure",
          {},
          imageButton(key, label, album, "small"),
          names.length > 1 ? make("figcaption", {}, armShort(arm)) : null,
        );
      }),
    );
    const result =
      answer.correct === null
        ? null
        : make("span", { class: `badge ${answer.correct ? "right" : "wrong"}` }, answer.correct ? "right" : "wrong");
    const invented = [...new Set(answer.invented)];
    const missing = base && !isBase ? missingWords(answer, base) : 0;
    return make(
      "div",
      { class: "answer" },
      make(
        "div",
        { class: "who" },
        names.map((arm) => make("div", {}, armShort(arm), arm === baseline ? make("small", {}, "baseline") : null)),
        result,
        answer.parsed && answer.parsed.length <= 12 && answer.correct !== null
          ? make("small", {}, `read as \u201c${answer.parsed}\u201d`)
          : null,
        missing ? make("small", {}, `without ${counted(missing, "word")} of the baseline`) : null,
      ),
      make(
        "div",
        { class: "what" },
        answerText(answer, isBase ? null : base),
        invented.length
          ? make(
              "p",
              { class: "invents" },
              "invents ",
              invented.map((object, index) => [index ? ", " : "", make("b", {}, object)]),
            )
          : null,
        images.length ? make("div", { class: "images" }, images) : null,
      ),
    );
  });
  return make(
    "article",
    { class: "card", "aria-label": `Sample ${sample.id}` },
    make("div", { class: "card-image" }, image),
    make(
      "div",
      { class: "card-body" },
      make(
        "p",
        { class: "card-id" },
        make("code", {}, sample.id),
        benchmark.scores.parts.length > 1 ? make("span", {}, sample.part) : null,
      ),
      make("p", { class: "question", dir: "auto" }, sample.question),
      make("p", { class: "truth" }, make("span", {}, "truth"), " ", sample.truth || "-"),
      rows,
    ),
  );
}

// An image in full, with the others of its sample at the arrow keys.
function openViewer(album, first) {
  const viewer = document.getElementById("viewer");
  let position = first;
  const image = make("img", { alt: "" });
  const caption = make("p", { id: "viewer-caption", "aria-live": "polite" });
  const show = (step) => {
    position = (position + step + album.length) % album.length;
    image.src = album[position].uri;
    image.alt = album[position].label;
    caption.textContent = `${album[position].label} (${position + 1} of ${album.length})`;
  };
  const button = (text, action) => make("button", { type: "button", onclick: action }, text);
  viewer.replaceChildren(
    image,
    caption,
    make(
      "div",
      { class: "viewer-buttons" },
      album.length > 1 ? [button("Previous", () => show(-1)), button("Next", () => show(1))] : null,
      button("Close", () => viewer.close()),
    ),
  );
  viewer.onkeydown = (event) => {
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  };
  viewer.onclick = (event) => {
    if (event.target === viewer) viewer.close();
  };
  show(0);
  viewer.showModal();
}
