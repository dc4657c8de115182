// The report of a run over slides: a table that can be sorted and filtered, with details of each row.

const ROWS_OF_A_PAGE = 50;
const view = { sort: "id", down: false, text: "", status: "", label: "", warned: false, page: 0, open: new Set() };

const total = (slide) => Object.values(slide.seconds).reduce((sum, own) => sum + (own ?? 0), 0);
const probabilities = (slide) => Object.entries(slide.probabilities).sort((one, other) => (other[1] ?? 0) - (one[1] ?? 0));
const COLUMNS = [
  { key: "thumbnail", title: "heatmap" },
  { key: "id", title: "slide", of: (slide) => slide.id },
  { key: "status", title: "status", of: (slide) => slide.status },
  { key: "prediction", title: "prediction", of: (slide) => probabilities(slide)[0]?.[1] ?? null },
  ...DATA.classes.slice(0, 1).map((name) => ({
    key: "class",
    title: `p(${name})`,
    of: (slide) => slide.probabilities[name] ?? null,
    number: true,
  })),
  { key: "tissue", title: "tissue", of: (slide) => slide.tissue, number: true },
  { key: "patches", title: "patches", of: (slide) => slide.patches, number: true },
  { key: "damaged", title: "damaged", of: (slide) => slide.damaged, number: true },
  { key: "seconds", title: "seconds", of: total, number: true },
  { key: "warnings", title: "warnings", of: (slide) => slide.warnings.length },
];
const SORTS = new Map(COLUMNS.filter((column) => column.of).map((column) => [column.key, column.of]));

function fillHead() {
  document.title = `${DATA.title} - Regard`;
  const counts = new Map();
  for (const slide of DATA.slides) counts.set(slide.status, (counts.get(slide.status) ?? 0) + 1);
  const warned = DATA.slides.filter((slide) => slide.warnings.length).length;
  document.getElementById("head").append(
    make("h1", {}, DATA.title),
    ...DATA.notes.map((words) => make("p", { class: "warning" }, words)),
    make(
      "div",
      { class: "counts" },
      make("b", {}, `${whole(DATA.slides.length)} slides`),
      [...counts].map(([status, count]) => make("span", {}, `${whole(count)} ${status}`)),
      warned ? make("span", {}, `${whole(warned)} with warnings`) : null,
      DATA.labelled ? make("span", {}, `${whole(DATA.correct)} of ${whole(DATA.labelled)} predicted correctly`) : null,
    ),
  );
  const entries = (name, values) =>
    Object.keys(values).length
      ? make("details", {}, make("summary", {}, name), pairs(Object.entries(values)))
      : null;
  document.getElementById("foot").append(
    ...[entries("Settings", DATA.settings), entries("Versions", DATA.versions)].filter(Boolean),
  );
}

function pairs(entries) {
  const words = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value ?? "-"));
  return make("dl", {}, entries.map(([name, value]) => [make("dt", {}, name), make("dd", {}, words(value))]));
}

function controls(redraw) {
  const change = (key, value) => {
    view[key] = value;
    view.page = 0;
    redraw();
  };
  const picker = (label, key, options) =>
    make(
      "label",
      { class: "control" },
      label,
      make(
        "select",
        { id: `filter-${key}`, onchange: (event) => change(key, event.target.value) },
        [["", "all"], ...options.map((own) => [own, own])].map(([value, text]) => make("option", { value }, text)),
      ),
    );
  const labels = [...new Set(DATA.slides.map((slide) => slide.label).filter((own) => own !== null))].sort();
  return make(
    "div",
    { class: "controls" },
    make(
      "label",
      { class: "control grow" },
      "Name, reason or warning",
      make("input", { type: "search", id: "filter-text", oninput: (event) => change("text", event.target.value) }),
    ),
    picker("Status", "status", [...new Set(DATA.slides.map((slide) => slide.status))].sort()),
    labels.length ? picker("Predicted", "label", labels) : null,
    make(
      "label",
      { class: "control check" },
      make("input", { type: "checkbox", id: "filter-warned", onchange: (event) => change("warned", event.target.checked) }),
      "with warnings only",
    ),
  );
}

function matching() {
  const text = view.text.toLowerCase();
  const found = DATA.slides.filter(
    (slide) =>
      (!view.status || slide.status === view.status) &&
      (!view.label || slide.label === view.label) &&
      (!view.warned || slide.warnings.length) &&
      (!text || [slide.id, slide.path, slide.reason, ...slide.warnings].join("\n").toLowerCase().includes(text)),
  );
  const of = SORTS.get(view.sort);
  const compare = (one, other) =>
    typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
  return found.sort((one, other) => {
    const [left, right] = [of(one), of(other)];
    if (left === null || right === null) return (left === null) - (right === null); // missing values come last
    return (view.down ? -1 : 1) * compare(left, right);
  });
}

function prediction(slide) {
  return probabilities(slide)
    .slice(0, 4)
    .map(([name, value], index) => {
      const spread = slide.spread[name];
      const around = spread === undefined || spread === null ? "" : ` \u00b1 ${fixed(spread, 2)}`;
      return make(
        "div",
        { class: index ? "probability" : "probability first" },
        make("span", { class: "name" }, name),
        make("span", {}, fixed(value, 3) + around),
        make("meter", { min: 0, max: 1, value: value ?? 0, "aria-label": `probability of ${name}` }),
      );
    });
}

function image(slide, name, alt) {
  if (!slide.files[name]) return null;
  return make("img", { src: addressOf(slide.files[name]), alt, loading: "lazy", decoding: "async" });
}

function detailOf(slide) {
  const figures = [
    ["heatmap_absolute", "absolute scale: the same limits on every slide"],
    ["heatmap_percentile", "percentiles within the slide: every slide has hot spots"],
    ["top", "patches with the highest scores"],
    ["tissue_image", "tissue"],
  ].filter(([name]) => slide.files[name]);
  const facts = [
    ["file", slide.path],
    ["size", slide.width ? `${whole(slide.width)} \u00d7 ${whole(slide.height)} px` : null],
    ["resolution", slide.mpp === null ? null : `${short(slide.mpp)} \u00b5m per pixel`],
    ["objective", slide.objective === null ? null : `${short(slide.objective)}\u00d7`],
    ["vendor, reader", [slide.vendor, slide.reader].filter(Boolean).join(", ") || null],
    ...Object.entries(slide.seconds).map(([stage, seconds]) => [`${stage}, s`, fixed(seconds, 2)]),
  ].filter(([, value]) => value !== null && value !== "");
  const links = Object.entries(slide.files).map(([name, path]) => [
    make("a", { href: addressOf(path) }, name.replaceAll("_", " ")),
    " ",
  ]);
  return make(
    "tr",
    { class: "detail" },
    make(
      "td",
      { colspan: COLUMNS.length },
      make(
        "div",
        { class: "images" },
        figures.map(([name, words]) =>
          make(
            "figure",
            {},
            make("a", { href: addressOf(slide.files[name]) }, image(slide, name, `${slide.id}: ${words}`)),
            make("figcaption", {}, words),
          ),
        ),
      ),
      pairs(facts),
      links.length ? make("p", { class: "note" }, "Files: ", links) : null,
    ),
  );
}

function rowsOf(slide, redraw) {
  const open = view.open.has(slide.id);
  const shown = image(slide, slide.files.preview ? "preview" : slide.files.thumbnail ? "thumbnail" : "heatmap_absolute", slide.id);
  const page = slide.files.page;
  const toggle = () => {
    view.open[open ? "delete" : "add"](slide.id);
    redraw();
  };
  const truth =
    slide.truth === null
      ? null
      : make(
          "div",
          { class: slide.label === null ? "" : slide.label === slide.truth ? "agrees" : "differs" },
          `labelled ${slide.truth}`,
        );
  const cells = {
    thumbnail: make("td", { class: "thumbnail" }, shown && page ? make("a", { href: addressOf(page) }, shown) : shown),
    id: make(
      "th",
      { scope: "row", class: "id" },
      page ? make("a", { href: addressOf(page) }, slide.id) : slide.id,
      make("small", {}, make("button", { class: "more", onclick: toggle, "aria-expanded": open ? "true" : "false" }, open ? "less" : "more")),
    ),
    status: make(
      "td",
      {},
      make("span", { class: `badge ${slide.status}` }, slide.status),
      slide.reason ? make("div", { class: "reason" }, slide.reason) : null,
    ),
    prediction: make("td", {}, prediction(slide), truth),
    class: make("td", { class: "number" }, fixed(slide.probabilities[DATA.classes[0]], 3)),
    tissue: make("td", { class: "number" }, slide.tissue === null ? "-" : `${fixed(100 * slide.tissue, 1)} %`),
    patches: make("td", { class: "number" }, whole(slide.patches)),
    damaged: make("td", { class: "number" }, slide.damaged ? whole(slide.damaged) : ""),
    seconds: make("td", { class: "number" }, fixed(total(slide), 1)),
    warnings: make("td", { class: "warned" }, slide.warnings.map((words) => make("div", {}, words))),
  };
  const row = make("tr", {}, COLUMNS.map((column) => cells[column.key]));
  return open ? [row, detailOf(slide)] : [row];
}

function head(redraw) {
  return COLUMNS.map((column) => {
    if (!column.of) return make("th", { scope: "col" }, make("div", { class: "plain" }, column.title));
    const sorted = view.sort === column.key;
    const click = () => {
      view.down = sorted ? !view.down : Boolean(column.number);
      view.sort = column.key;
      redraw();
    };
    const order = sorted ? (view.down ? "descending" : "ascending") : "none";
    const arrow = sorted ? (view.down ? " \u25be" : " \u25b4") : "";
    return make(
      "th",
      { scope: "col", class: column.number ? "number" : "", "aria-sort": order },
      make("button", { "data-key": column.key, onclick: click }, column.title + arrow),
    );
  });
}

function fillMain() {
  const count = make("p", { class: "note", id: "count", "aria-live": "polite" });
  const table = make("table", {});
  const pages = make("div", { class: "pages" });
  const redraw = () => {
    const found = matching();
    const last = Math.max(0, Math.ceil(found.length / ROWS_OF_A_PAGE) - 1);
    view.page = Math.min(view.page, last);
    const from = view.page * ROWS_OF_A_PAGE;
    const shown = found.slice(from, from + ROWS_OF_A_PAGE);
    count.textContent = `${whole(found.length)} of ${whole(DATA.slides.length)} slides`;
    table.replaceChildren(
      make("thead", {}, make("tr", {}, head(redraw))),
      make("tbody", {}, shown.map((slide) => rowsOf(slide, redraw))),
    );
    const step = (by) => () => {
      view.page += by;
      redraw();
      count.scrollIntoView();
    };
    pages.replaceChildren(
      make("button", { onclick: step(-1), disabled: view.page === 0 }, "previous"),
      `page ${view.page + 1} of ${last + 1}`,
      make("button", { onclick: step(1), disabled: view.page === last }, "next"),
    );
    pages.hidden = last === 0;
  };
  document
    .getElementById("main")
    .append(controls(redraw), count, make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Slides" }, table), pages);
  redraw();
}

fillHead();
fillMain();
