"use strict";
// Keys, labels, quotations and sliders. Pages work without it: it follows links that stand there and changes no text
// but its own. What comes from the run is never put into a page by this script.

const typing = (target) => target.closest("input, select, textarea") !== null;
const one = (query) => document.querySelector(query);

function toggleKeys() {
  const keys = one("#keys");
  keys.hidden = !keys.hidden;
  one("#keys-button").setAttribute("aria-expanded", String(!keys.hidden));
}

function step(forward) {
  const rows = [...document.querySelectorAll(".row")];
  if (!rows.length) {
    const link = one(forward ? "[data-key=j]" : "[data-key=k]");
    if (link) location.assign(link.href);
    return;
  }
  const next = rows.indexOf(document.activeElement) + (forward ? 1 : -1);
  if (next >= 0 && next < rows.length) {
    rows[next].focus();
  } else {
    const link = one(`[data-page=${forward ? "next" : "previous"}]`);
    if (link && (next >= rows.length || next < 0)) location.assign(link.href);
  }
}

function light(numbers, scrolled) {
  for (const mark of document.querySelectorAll("mark.q")) {
    const own = mark.dataset.q.split(" ");
    mark.classList.toggle("here", own.some((number) => numbers.includes(number)));
  }
  const target = numbers.length ? one(`#document-text mark[data-q~="${Number(numbers[0])}"]`) : null;
  if (scrolled && target) bring(target);
}

// Scrolls the document, not the page, where the document stands beside the pair.
function bring(target) {
  const pane = target.closest(".document");
  if (pane.scrollHeight > pane.clientHeight && getComputedStyle(pane).position === "sticky") {
    pane.scrollTop += target.getBoundingClientRect().top - pane.getBoundingClientRect().top - pane.clientHeight / 4;
  } else {
    target.scrollIntoView({ block: "start" });
  }
}

let quotation = 0;
function nextQuotation() {
  const all = [...document.querySelectorAll("#document-text mark[id]")];
  if (!all.length) return;
  const mark = all[quotation % all.length];
  quotation += 1;
  light(mark.dataset.q.split(" "), true);
}

let pending = Promise.resolve();
function label(name) {
  const form = one("#labels");
  if (!form) return;
  const buttons = [...form.querySelectorAll("[data-label]")];
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  for (const button of buttons) {
    const own = button.dataset.label;
    if (name === "") button.setAttribute("aria-pressed", String(own === ""));
    else if (own === name) button.setAttribute("aria-pressed", String(!pressed(button)));
    else if (own === "") button.setAttribute("aria-pressed", "false");
  }
  const faults = buttons.filter((button) => button.dataset.label && pressed(button)).map((b) => b.dataset.label);
  if (!faults.length) buttons[0].setAttribute("aria-pressed", "true");
  const state = one("#label-state");
  state.textContent = "saving";
  const body = JSON.stringify({ pair_id: form.dataset.pair, row: Number(form.dataset.row), faults });
  pending = pending.then(() => send(body, state));
}

// One after the other, so that the last label that was given is the last one kept.
async function send(body, state) {
  try {
    const answer = await fetch("/labels", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      keepalive: true,
    });
    const told = await answer.json();
    state.textContent = answer.ok ? "saved" : `not saved: ${told.trouble}`;
  } catch {
    state.textContent = "not saved: the viewer does not answer";
  }
}

let asked = 0;
async function moved() {
  const form = one("#thresholds");
  const address = `/thresholds?${new URLSearchParams(new FormData(form))}`;
  for (const output of form.querySelectorAll("output")) output.textContent = one(`#${output.htmlFor}`).value;
  asked += 1;
  const mine = asked;
  const answer = await fetch(address);
  if (!answer.ok || mine !== asked) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (mine !== asked) return;
  for (const place of ["#outcome", "#plot-min_score", "#plot-min_ratio", "#plot-min_cosine"]) {
    one(place).replaceChildren(...page.querySelector(place).childNodes);
  }
  history.replaceState(null, "", address);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const labels = document.querySelectorAll("#labels [data-label]");
  if (event.key === "?") toggleKeys();
  else if (event.key === "/" && one("#search")) one("#search").select();
  else if (event.key === "j" || event.key === "ArrowRight") step(true);
  else if (event.key === "k" || event.key === "ArrowLeft") step(false);
  else if (event.key === "q") nextQuotation();
  else if (/^[0-9]$/.test(event.key) && labels[Number(event.key)]) label(labels[Number(event.key)].dataset.label);
  else if (/^[a-z]$/.test(event.key) && one(`[data-key=${event.key}]`)) location.assign(one(`[data-key=${event.key}]`).href);
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-label]");
  const mark = event.target.closest("mark.q");
  if (event.target.closest("#keys-button")) toggleKeys();
  else if (button) label(button.dataset.label);
  else if (mark) light(mark.dataset.q.split(" "), mark.closest("#answer-text") !== null);
});

const first = one("#document-text mark[id]");
const isBelow = () => first.getBoundingClientRect().top > first.closest(".document").getBoundingClientRect().bottom - 120;
if (first && matchMedia("(min-width: 821px)").matches && isBelow()) bring(first);

one("#thresholds")?.addEventListener("input", moved);
for (const select of document.querySelectorAll(".filters select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
