// The page of a slide: the panel next to the canvas, and interaction on the canvas. Bokeh draws; see slide_canvas.py.

const PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
const scoreMaps = DATA.score_maps.map((scoreMap) => ({
  ...scoreMap,
  maps: Object.fromEntries(Object.entries(scoreMap.maps).map(([scale, text]) => [scale, floats(text)])),
}));
const shown = { map: 0, scale: "absolute", opacity: 0.5 };
const part = (id) => document.getElementById(id);

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// Position on the colour bar, 0 to 1; NaN for a cell without a patch.
function shareOf(value, scale) {
  if (Number.isNaN(value)) return NaN;
  const transform = scale.logarithmic ? (number) => Math.log2(Math.max(number, scale.low)) : (number) => number;
  const share = (transform(value) - transform(scale.low)) / (transform(scale.high) - transform(scale.low));
  return Math.min(1, Math.max(0, share));
}

function describe(scoreMap, scale, value) {
  if (scale === "percentile") return `percentile ${fixed(value, 0)}`;
  return scoreMap.kind === "attention" ? `${short(value)}${TIMES} uniform` : `probability ${fixed(value, 3)}`;
}

// Beside the canvas.

function fillHead() {
  document.title = `${DATA.id} - Regard`;
  const predictions = DATA.probabilities.map(([name, value, spread]) => {
    const around = spread === null ? "" : ` \u00b1 ${fixed(spread, 2)}`;
    return `${name} ${fixed(value, 2)}${around}`;
  });
  part("head").append(
    make("h1", {}, DATA.id),
    make("span", {}, predictions.join(", ") || DATA.status),
    make("a", { href: "../../report.html" }, "all slides"),
  );
}

function colourBar(scale) {
  const canvas = make("canvas", { class: "bar-colours", width: DATA.palette.length, height: 1 });
  const pen = canvas.getContext("2d");
  DATA.palette.forEach((colour, index) => {
    pen.fillStyle = colour;
    pen.fillRect(index, 0, 1, 1);
  });
  const ticks = scale.ticks.filter((_, index) => index % 2 === 0).map(([value, words]) => {
    const span = make("span", {}, words.replace("uniform or less", `1${TIMES}`).replace(" or more", "+"));
    span.style.left = `${100 * shareOf(value, scale)}%`;
    return span;
  });
  return [make("div", { class: "note" }, scale.label), canvas, make("div", { class: "ticks" }, ticks)];
}

function facts(entries) {
  const rows = entries.filter(([, value]) => value !== null && value !== "");
  return make("dl", {}, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

function fillSide(canvas) {
  const side = part("side");
  const bar = make("div", { id: "bar" });
  const redraw = () => {
    if (scoreMaps.length) bar.replaceChildren(...colourBar(scoreMaps[shown.map].scales[shown.scale]).flat());
    canvas?.paint();
  };
  const choice = (label, options, key) =>
    make(
      "label",
      {},
      label,
      make(
        "select",
        {
          id: `choose-${key}`,
          onchange: (event) => {
            shown[key] = typeof shown[key] === "number" ? Number(event.target.value) : event.target.value;
            redraw();
          },
        },
        options.map(([value, text]) => make("option", { value }, text)),
      ),
    );
  for (const words of [...DATA.notes, ...DATA.warnings]) side.append(make("p", { class: "warning" }, words));
  if (!canvas) side.append(make("p", { class: "warning" }, DATA.fallback));
  if (scoreMaps.length && canvas) {
    const slider = make("input", {
      id: "opacity",
      type: "range",
      min: 0,
      max: 100,
      value: 100 * shown.opacity,
      oninput: (event) => {
        shown.opacity = event.target.value / 100;
        canvas.paint();
      },
    });
    side.append(
      make("h2", {}, "Heatmap"),
      scoreMaps.length > 1 ? choice("Shown", scoreMaps.map((scoreMap, index) => [index, scoreMap.name]), "map") : "",
      choice("Scale", [["absolute", "absolute: same limits on every slide"], ["percentile", "percentile within this slide"]], "scale"),
      make("label", {}, "Opacity", slider),
      bar,
    );
  }
  if (canvas) {
    const toggle = (label, names) =>
      make(
        "label",
        {},
        make("input", { type: "checkbox", checked: true, onchange: (event) => canvas.show(names, event.target.checked) }),
        ` ${label}`,
      );
    if (DATA.outlined) side.append(toggle("outline of the tissue", ["outlines"]));
    if (DATA.top.length) side.append(toggle("top patches", ["frames", "ranks"]));
    side.append(
      make(
        "div",
        { class: "buttons" },
        make("button", { id: "zoom-in", onclick: () => canvas.zoom(0.5) }, "zoom in"),
        make("button", { id: "zoom-out", onclick: () => canvas.zoom(2) }, "zoom out"),
        make("button", { id: "whole", onclick: () => canvas.lookAt(...DATA.bounds) }, "whole slide"),
      ),
      make("h2", {}, "Under the pointer"),
      make("output", { id: "under" }, "Move the pointer over the slide."),
    );
  }
  if (DATA.top.length) {
    side.append(
      make("h2", {}, "Top patches"),
      make(
        "ol",
        { class: "top" },
        DATA.top.map((patch) =>
          make(
            "li",
            {},
            make(
              "button",
              { onclick: () => canvas?.lookAt(patch.x - patch.side, patch.y - patch.side, 3 * patch.side, 3 * patch.side) },
              make("img", { src: patch.file, alt: `patch ${patch.rank}`, loading: "lazy" }),
              `${patch.rank}. ${patch.score}`,
            ),
          ),
        ),
      ),
    );
  }
  side.append(make("h2", {}, "Slide"), facts(DATA.facts), make("p", { class: "note" }, DATA.detail));
  redraw();
}

// On the canvas.

async function openCanvas() {
  if (!window.Bokeh || !DATA.figure) return null;
  // A page on disk has no origin, and Bokeh's first request, with CORS, would fail for each tile.
  if (location.protocol === "file:") {
    Object.defineProperty(HTMLImageElement.prototype, "crossOrigin", { get: () => null, set: () => {} });
  }
  window.Bokeh.set_log_level("error");
  const manager = await window.Bokeh.embed.embed_item(DATA.figure, "canvas");
  const view = [...manager.roots][0];
  const plot = view.model;
  const named = (name) => plot.renderers.find((renderer) => renderer.name === name);
  steer(named("tiles").tile_source);
  const canvas = {
    plot,
    paint() {
      const renderer = named("heatmap");
      if (!renderer) return;
      const scoreMap = scoreMaps[shown.map];
      const scale = scoreMap.scales[shown.scale];
      const [image] = renderer.data_source.data.image;
      const { rows, columns } = DATA.raster;
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const value = scoreMap.maps[shown.scale][row * columns + column];
          image[(rows - 1 - row) * columns + column] = shareOf(value, scale);
        }
      }
      renderer.glyph.global_alpha = shown.opacity;
      renderer.data_source.change.emit();
    },
    show(names, visible) {
      for (const name of names) named(name).visible = visible;
    },
    zoom(factor) {
      const { start: left, end: right } = plot.x_range;
      const { start: bottom, end: top } = plot.y_range;
      const [x, y] = [(left + right) / 2, (bottom + top) / 2];
      const [wide, high] = [((right - left) * factor) / 2, ((top - bottom) * factor) / 2];
      plot.x_range.setv({ start: x - wide, end: x + wide });
      plot.y_range.setv({ start: y - high, end: y + high });
    },
    // A rectangle in pixels of full resolution, in the middle, whole, and not stretched.
    lookAt(x, y, width, height) {
      const { width: across, height: down } = view.frame.bbox;
      const pixel = Math.max(width / across, height / down);
      const [middle, centre] = [x + width / 2, -(y + height / 2)];
      plot.x_range.setv({ start: middle - (pixel * across) / 2, end: middle + (pixel * across) / 2 });
      plot.y_range.setv({ start: centre - (pixel * down) / 2, end: centre + (pixel * down) / 2 });
    },
  };
  const rescale = () => drawScale((plot.x_range.end - plot.x_range.start) / view.frame.bbox.width);
  plot.x_range.properties.end.change.connect(rescale);
  plot.on_event("mousemove", (event) => describePointer(event.x, -event.y));
  canvas.lookAt(...DATA.bounds);
  rescale();
  window.addEventListener("resize", rescale);
  return canvas;
}

// Bokeh requests tiles by zoom, column and row from below; only those that exist are fetched, at the zoom that is at
// least as fine as the screen.
function steer(source) {
  const there = new Set(DATA.tiles);
  const name = (x, y, z) => `${z}/${x}_${2 ** z - 1 - y}`;
  source.is_valid_tile = (x, y, z) => there.has(name(x, y, z));
  source.get_image_url = (x, y, z) => (there.has(name(x, y, z)) ? `tiles/${name(x, y, z)}.jpg` : PIXEL);
  source.get_level_by_extent = (extent, height, width) => {
    const wanted = Math.max((extent[2] - extent[0]) / width, (extent[3] - extent[1]) / height);
    const zoom = Math.ceil(Math.log2(source.initial_resolution / wanted) - 0.3);
    return Math.min(source.max_zoom, Math.max(0, zoom));
  };
}

function drawScale(spans) {
  const microns = DATA.mpp ? spans * DATA.mpp : spans; // of a pixel of the screen
  const longest = 180 * microns;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((step) => step * power).find((own) => own <= longest);
  const bar = make("div", { class: "bar" });
  bar.style.width = `${length / microns}px`;
  const words = !DATA.mpp ? `${short(length)} px` : length >= 1000 ? `${short(length / 1000)} mm` : `${short(length)} \u00b5m`;
  part("scale").replaceChildren(words, bar);
}

function describePointer(x, y) {
  const lines = [`x ${whole(Math.floor(x))}, y ${whole(Math.floor(y))} px`];
  if (x < 0 || y < 0 || x >= DATA.width || y >= DATA.height) lines[0] = "outside the slide";
  else if (scoreMaps.length) {
    const { x: left, y: top, cell, rows, columns } = DATA.raster;
    const [row, column] = [Math.floor((y - top) / cell), Math.floor((x - left) / cell)];
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    const index = row * columns + column;
    for (const scoreMap of scoreMaps) {
      const value = inside ? scoreMap.maps.absolute[index] : NaN;
      lines.push(
        Number.isNaN(value)
          ? `${scoreMap.name}: no patch`
          : `${scoreMap.name}: ${describe(scoreMap, "absolute", value)}, ${describe(scoreMap, "percentile", scoreMap.maps.percentile[index])}`,
      );
    }
  }
  part("under").textContent = lines.join("\n");
}

function showOverview() {
  const images = [DATA.overview, ...DATA.images].map(([file, alt]) => make("img", { src: addressOf(file), alt }));
  part("canvas").append(...images);
  part("canvas").removeAttribute("role");
  part("scale").hidden = true;
}

fillHead();
openCanvas()
  .catch((error) => {
    console.warn(error);
    part("canvas").replaceChildren();
    return null;
  })
  .then((canvas) => {
    if (!canvas) showOverview();
    fillSide(canvas);
    window.regardSlide = canvas; // for the console, and for tests
  });
