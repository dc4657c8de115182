// Shared by both pages: elements whose children are text, formatted numbers, and addresses of files.

const DATA = JSON.parse(document.getElementById("data").textContent);
const MINUS = "\u2212";
const TIMES = "\u00d7";

// An element; strings among its children become text nodes, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// The address of a file from its path; names may contain any character.
const addressOf = (path) => path.split("/").map(encodeURIComponent).join("/");

function fixed(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

const whole = (count) =>
  count === null || count === undefined ? "-" : count.toLocaleString("en").replaceAll(",", "\u202f");

function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  return String(Number(value.toPrecision(3))).replace("-", MINUS);
}
