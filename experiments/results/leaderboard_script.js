// Chooses, filters, sorts and draws the rows of leaderboard.html, which has all of them. Texts come
// from the page, and are only ever set as text.
"use strict";

const tables = JSON.parse(document.getElementById("tables").textContent);
const form = document.querySelector("form");
const bodies = [...document.querySelectorAll(".board tbody")];
const headings = [...document.querySelectorAll(".board thead th[data-key]")];
const FIRST_SORT = "value,descending";
let sort = FIRST_SORT;

// The rows of each table, with their two elements: the row, and the one below it on its runs.
const rowsOf = tables.map((table, number) =>
  table.rows.map((row, place) => {
    const [main, more] = [...bodies[number].rows].slice(2 * place, 2 * place + 2);
    return { ...row, main, more, open: false };
  }),
);

function setOptions(select, values) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  if (values.includes(before)) select.value = before;
}

// The number of the table that is chosen. A data set's studies and a table's metrics follow what is
// chosen before them; a choice that the new table has too is kept.
function fillSelects() {
  const { dataset, study, metric } = form.elements;
  setOptions(dataset, [...new Set(tables.map((table) => table.dataset))]);
  setOptions(study, tables.filter((table) => table.dataset === dataset.value).map((t) => t.study));
  const number = tables.findIndex((t) => t.dataset === dataset.value && t.study === study.value);
  const table = tables[number];
  const kept = table.metrics.includes(metric.value) ? metric.value : table.first;
  setOptions(metric, table.metrics);
  metric.value = kept;
  return number;
}

// The choice as the address's fragment, once `show` has filled the form.
function fragment() {
  const { dataset, study, metric, cell, seeds, published } = form.elements;
  const choice = new URLSearchParams({ dataset: dataset.value, study: study.value });
  choice.set("metric", metric.value);
  if (cell.value) choice.set("cell", cell.value);
  if (seeds.value > 1) choice.set("seeds", seeds.value);
  if (!published.checked) choice.set("published", "no");
  if (sort !== FIRST_SORT) choice.set("sort", sort);
  return `#${choice}`;
}

// Set the form as the fragment says, and return what it asks for that the page does not have.
function readFragment() {
  const choice = new URLSearchParams(location.hash.slice(1));
  const missing = [];
  form.reset();
  for (const name of ["dataset", "study", "metric"]) {
    fillSelects();
    const value = choice.get(name);
    const select = form.elements[name];
    if (value === null) select.selectedIndex = 0;
    else if ([...select.options].some((option) => option.value === value)) select.value = value;
    else missing.push(`${name} ${value}`);
  }
  if (!choice.has("metric")) form.elements.metric.value = tables[fillSelects()].first;
  form.elements.cell.value = choice.get("cell") ?? "";
  form.elements.seeds.value = Math.max(1, Number(choice.get("seeds")) || 1);
  form.elements.published.checked = choice.get("published") !== "no";
  sort = choice.get("sort") ?? FIRST_SORT;
  return missing;
}

// The published figures of a row for a metric, as pairs of value and text.
function publishedOf(row, metric) {
  return row.published.map((each) => each.figures[metric]).filter(Boolean);
}

// What a row is sorted by; null: it has no value.
function sortKey(row, key, metric) {
  if (key === "value") return row.figures[metric]?.[0] ?? null;
  if (key === "validation") return row.validation[metric]?.[0] ?? null;
  if (key === "published") return publishedOf(row, metric)[0]?.[0] ?? null;
  return row.keys[key] ?? null;
}

// Rows without a value stand last in both directions.
function sorted(rows, metric) {
  const [key, direction] = sort.split(",");
  const sign = direction === "descending" ? -1 : 1;
  return [...rows].sort((one, other) => {
    const [a, b] = [sortKey(one, key, metric), sortKey(other, key, metric)];
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number") return sign * (a - b);
    return sign * a.localeCompare(b, "en", { numeric: true });
  });
}

// The ends of the axis: all means and published figures, and intervals as far as they reach no
// further out than the means are apart, so that one wide interval does not press all else together.
function domainOf(rows, metric, withPublished) {
  const figures = rows.map((row) => row.figures[metric]).filter(Boolean);
  const theirs = withPublished ? rows.flatMap((row) => publishedOf(row, metric)) : [];
  const points = [...figures, ...theirs].map(([value]) => value);
  if (!points.length) return [0, 1];
  const [least, most] = [Math.min(...points), Math.max(...points)];
  const apart = most - least || Math.max(...figures.map(([, half]) => half), 1e-4);
  const low = Math.min(least, ...figures.map(([mean, half]) => mean - half));
  const high = Math.max(most, ...figures.map(([mean, half]) => mean + half));
  const ends = [Math.max(low, least - apart), Math.min(high, most + apart)];
  const margin = 0.06 * (ends[1] - ends[0]);
  return [ends[0] - margin, ends[1] + margin];
}

// Round numbers within the axis, two to six of them.
function ticksOf([low, high]) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n += 1) ticks.push(n * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return ticks.map((tick) => [tick, tick.toFixed(decimals).replace(/^(-?)0\./, "$1.")]);
}

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// A row's part of the plot, all on one axis; `figure` is a mean and half of its interval.
function drawing([low, high], figure, theirs) {
  const at = (value) => `${((100 * (value - low)) / (high - low)).toFixed(2)}%`;
  const svg = element("svg", {});
  const y = "1.1em";
  for (const [tick] of ticksOf([low, high])) {
    svg.append(element("line", { class: "grid", x1: at(tick), x2: at(tick), y1: 0, y2: "100%" }));
  }
  if (figure) {
    const ends = [figure[0] - figure[1], figure[0] + figure[1]];
    svg.append(element("line", { class: "ours", x1: at(ends[0]), x2: at(ends[1]), y1: y, y2: y }));
    for (const x of ends.map(at)) {
      svg.append(element("line", { class: "ours", x1: x, x2: x, y1: "0.8em", y2: "1.4em" }));
    }
    svg.append(element("circle", { class: "ours", cx: at(figure[0]), cy: y, r: 4 }));
  }
  for (const [value] of theirs) {
    const mark = element("svg", { x: at(value), y, width: 1, height: 1, overflow: "visible" });
    mark.append(element("path", { class: "theirs", d: "M0,-5L5,0L0,5L-5,0Z" }));
    svg.append(mark);
  }
  return svg;
}

// The heading of the plot: the numbers of its axis.
function axis([low, high]) {
  const svg = element("svg", {});
  for (const [tick, text] of ticksOf([low, high])) {
    const x = `${((100 * (tick - low)) / (high - low)).toFixed(2)}%`;
    svg.append(element("text", { class: "tick", x, y: "100%", dy: "-0.5em" }, text));
  }
  return svg;
}

function fillRow(row, metric, withPublished, domain) {
  const figure = row.figures[metric];
  row.main.querySelector("td.value").textContent = figure ? figure[2] : "";
  row.main.querySelector("td.validation").textContent = row.validation[metric]?.[1] ?? "";
  [...row.main.querySelectorAll("td.published > div")].forEach((div, place) => {
    const theirs = row.published[place].figures[metric];
    div.hidden = !theirs;
    div.querySelector(".value").textContent = theirs ? theirs[1] : "";
  });
  const theirs = withPublished ? publishedOf(row, metric) : [];
  row.main.querySelector(".plot").replaceChildren(drawing(domain, figure, theirs));
}

// Show what the form says; `missing` are names in the address that the page does not have.
function show(missing = []) {
  const number = fillSelects();
  const [table, rows] = [tables[number], rowsOf[number]];
  const metric = form.elements.metric.value;
  const withPublished = form.elements.published.checked;
  const text = form.elements.cell.value.trim().toLowerCase();
  const least = Number(form.elements.seeds.value) || 1;
  const chosen = rows.filter(
    (row) => row.cell.toLowerCase().includes(text) && row.keys.seeds >= least,
  );
  const domain = domainOf(chosen, metric, withPublished);
  for (const row of rows) {
    row.main.hidden = !chosen.includes(row);
    row.more.hidden = row.main.hidden || !row.open;
    row.main.classList.toggle("has-more", !row.more.hidden);
    if (!row.main.hidden) fillRow(row, metric, withPublished, domain);
  }
  bodies[number].append(...sorted(rows, metric).flatMap((row) => [row.main, row.more]));
  bodies.forEach((body, place) => (body.hidden = place !== number));
  document.querySelectorAll(".words").forEach((words, place) => (words.hidden = place !== number));
  document.querySelectorAll(".published").forEach((cell) => (cell.hidden = !withPublished));
  const compares = rows.some((row) => row.differences.length > 0);
  document.querySelectorAll(".difference").forEach((cell) => (cell.hidden = !compares));
  document.getElementById("name").textContent = `${table.dataset}, ${table.study}`;
  document.getElementById("metric").textContent = metric.toUpperCase();
  document.querySelector("thead .plot").replaceChildren(axis(domain));
  const unknown = missing.length ? `This page does not have ${missing.join(", ")}. ` : "";
  document.getElementById("shown").textContent =
    `${unknown}${chosen.length} of ${rows.length} cells`;
  const [key, direction] = sort.split(",");
  for (const heading of headings) {
    heading.ariaSort = heading.dataset.key === key ? direction : "none";
  }
}

function keepAndShow() {
  show();
  history.replaceState(null, "", fragment());
}

// Copy a command, or select it where the browser does not let a page copy.
async function copy(button) {
  const command = button.previousElementSibling;
  getSelection().selectAllChildren(command);
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = "selected: copy it with the keyboard";
  }
  setTimeout(() => (button.textContent = "copy the command"), 2000);
}

for (const heading of headings) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => {
    const [key, direction] = sort.split(",");
    const highFirst = ["value", "validation", "difference", "published"].includes(heading.dataset.key);
    const before = heading.dataset.key === key ? direction : highFirst ? "ascending" : "descending";
    sort = `${heading.dataset.key},${before === "ascending" ? "descending" : "ascending"}`;
    keepAndShow();
  });
  heading.append(button);
}
for (const row of rowsOf.flat()) {
  row.main.querySelector(".button button").addEventListener("click", ({ currentTarget }) => {
    row.open = !row.open;
    currentTarget.ariaExpanded = String(row.open);
    show();
  });
}
document.querySelectorAll("button.copy").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});
form.addEventListener("input", keepAndShow);
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => show(readFragment()));
for (const hidden of document.querySelectorAll("form, #legend, .board .plot, .board .button")) {
  hidden.hidden = false;
}
show(readFragment());
