// The list of results: filtered, sorted, a page at a time.

import { get, send, thumbnail } from "./api.js";
import { announce, arrange, count, el, fill, number, released, when } from "./dom.js";
import { uploadBar } from "./upload.js";

const PAGE = 50;
const SHOW = [
  ["all", "All", {}],
  ["flagged", "Flagged", { flag: true }],
  ["today", "Flagged today", { flag: true, today: true }],
  ["refused", "Without a score", { refused: true }],
  ["doubted", "Doubtful", { doubted: true }],
  ["unmarked", "Flagged, not marked", { flag: true, marked: "none" }],
  ["wrong", "Marked wrong", { marked: "wrong" }],
];
const COLUMNS = [
  [null, "Image"],
  ["name", "Name"],
  ["score", "Score"],
  ["p_value", "p"],
  [null, "Verdict"],
  ["doubts", "Doubts"],
  [null, "Model"],
  ["newest", "When"],
];

/** What is shown; kept while the viewer is open. */
export const asked = { show: "all", sort: "newest", name: "", model: null, offset: 0 };

/** The results of the page that is shown, for the viewer's way to the next one. */
export let shown = [];

/** Builds the view in its place; returns what brings it up to date until it is left. */
export function listView(place, state, who, onsent, signal) {
  const jobs = el("div", { class: "jobs", id: "jobs" });
  const body = el("tbody");
  const foot = el("nav", { class: "pages", "aria-label": "Pages" });
  const total = el("p", { class: "soft", id: "total" });
  const heads = COLUMNS.map(([sort, text]) => {
    if (!sort) return el("th", { scope: "col" }, text);
    const button = el("button", { type: "button", onclick: () => choose({ sort }) }, text);
    return el("th", { scope: "col", "data-sort": sort }, button);
  });
  const search = el("input", {
    type: "search",
    placeholder: "A part of the name",
    "aria-label": "Find by a part of the name",
    value: asked.name,
    maxLength: 200,
  });
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => choose({ name: search.value }), 250);
  });
  const show = el(
    "select",
    { "aria-label": "Which results", onchange: () => choose({ show: show.value }) },
    SHOW.map(([value, text]) => el("option", { value, selected: value === asked.show }, text)),
  );
  const sorts = el(
    "select",
    { "aria-label": "Order", class: "phone-only", onchange: () => choose({ sort: sorts.value }) },
    [
      ["newest", "Newest first"],
      ["score", "Highest score first"],
      ["p_value", "Smallest p first"],
      ["name", "By name"],
      ["doubts", "Most doubts first"],
    ].map(([value, text]) => el("option", { value, selected: value === asked.sort }, text)),
  );
  const names = [...new Set(state.models.map((model) => model.name))];
  const models = el(
    "select",
    { "aria-label": "Model", onchange: () => choose({ model: models.value || null }) },
    el("option", { value: "" }, "All models"),
    names.map((name) => el("option", { value: name, selected: name === asked.model }, name)),
  );
  const table = el(
    "table",
    { class: "results" },
    el("caption", { class: "hidden-text" }, "Results"),
    el("thead", {}, el("tr", {}, heads)),
    body,
  );
  fill(
    place,
    el("h1", { class: "hidden-text" }, "Results"),
    who.role === "read" ? null : uploadBar(state.limits, onsent),
    jobs,
    el(
      "div",
      { class: "filters" },
      show,
      names.length > 1 ? models : null,
      sorts,
      search,
      total,
      el("a", { class: "button", href: "/v1/marks.csv", download: "marks.csv" }, "Marks as CSV"),
    ),
    el("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": "List of results" }, table),
    foot,
  );

  function choose(change) {
    Object.assign(asked, { offset: 0 }, change);
    refresh(true);
  }

  let turn = 0;
  async function refresh(loud = false) {
    const mine = ++turn;
    const { today, ...filter } = SHOW.find(([value]) => value === asked.show)[2];
    if (today) filter.since = new Date().setHours(0, 0, 0, 0) / 1000;
    const wanted = {
      ...filter,
      name: asked.name || null,
      model: asked.model,
      sort: asked.sort,
      offset: asked.offset,
      limit: PAGE,
    };
    const found = await send("POST", "/v1/results/search", wanted, signal);
    await released();
    if (mine !== turn) return;
    shown = found.results;
    total.textContent = count(found.total, "result");
    if (loud) announce(count(found.total, "result"));
    for (const head of heads) {
      const sorted = head.dataset.sort && head.dataset.sort === asked.sort;
      if (sorted) head.setAttribute("aria-sort", /^(score|doubts|newest)$/.test(asked.sort) ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const kept = new Map([...body.children].map((row) => [row.dataset.key, row]));
    const rows = shown.map((result) => kept.get(key(result)) ?? rowOf(result));
    arrange(body, rows.length ? rows : [el("tr", {}, el("td", { colSpan: 8, class: "nothing" }, empty()))]);
    pages(found.total);
  }

  function empty() {
    return asked.show === "all" && !asked.name && !asked.model
      ? "Nothing was scored yet."
      : "No result is like that.";
  }

  function pages(all) {
    if (all <= PAGE) return fill(foot);
    const go = (offset, text, off) =>
      el("button", { type: "button", disabled: off, onclick: () => { asked.offset = offset; refresh(true); scrollTo(0, 0); } }, text);
    fill(
      foot,
      go(Math.max(0, asked.offset - PAGE), "Earlier page", asked.offset === 0),
      el("span", {}, `${asked.offset + 1} to ${Math.min(all, asked.offset + PAGE)} of ${all}`),
      go(asked.offset + PAGE, "Next page", asked.offset + PAGE >= all),
    );
  }

  const running = new Map();
  let before = state.queued; // those that were there before this page listened
  say();
  function say() {
    const left = Math.max(running.size, before);
    fill(
      jobs,
      left ? el("span", { class: "busy" }, `${count(left, "job")} waiting or being scored…`) : null,
    );
  }

  async function progress(event) {
    if (event.event === "job") {
      if (["done", "failed"].includes(event.status)) running.delete(event.job);
      else running.set(event.job, event);
      if (event.status === "failed") {
        const job = await get(`/v1/jobs/${event.job}`, signal);
        jobs.after(
          el("p", { class: "notice problem", role: "alert" }, `A job of ${count(job.files, "file")} failed: ${job.reason}`),
        );
      }
    }
    if (event.status === "done") before = Math.max(0, before - 1);
    say();
  }

  return { refresh, progress };
}

function key(result) {
  return `${result.id} ${result.mark?.verdict ?? ""}`;
}

/** What is said of a result, and how it looks. */
export function verdict(result) {
  if (result.refusal) return ["refused", "No score"];
  return result.flag ? ["flagged", "Flagged"] : ["quiet", "Not flagged"];
}

function rowOf(result) {
  const picture = el("img", { alt: "", width: 56, height: 56, loading: "lazy" });
  if (result.kind !== "file") {
    thumbnail(result.id).then((url) => (url ? (picture.src = url) : picture.remove()));
  } else picture.classList.add("none");
  const [kind, text] = verdict(result);
  const mark = result.mark ? el("span", { class: "mark" }, `marked ${result.mark.verdict}`) : null;
  const cell = (label, name, ...content) =>
    el("td", { class: name, "data-label": label }, ...content);
  const images = result.images > 1 ? `, ${count(result.images, "image")}` : "";
  return el(
    "tr",
    {
      "data-key": key(result),
      onclick: (event) => {
        if (!event.target.closest("a")) location.hash = `#/result/${result.id}`;
      },
    },
    cell("", "thumb", picture),
    cell(
      "",
      "name",
      el("a", { href: `#/result/${result.id}` }, result.name || "(no name)"),
      el("small", {}, result.refusal ?? `${result.kind}${images}`),
    ),
    cell("Score", "figure", number(result.score)),
    cell("p", "figure", number(result.p_value)),
    cell("", "verdict", el("span", { class: `tag ${kind}` }, text), mark),
    cell("Doubts", "figure doubts", result.doubts ? String(result.doubts) : "–"),
    cell("", "soft model", result.model),
    cell("", "soft time", when(result.created)),
  );
}
