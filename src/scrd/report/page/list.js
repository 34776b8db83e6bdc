// The list: filtered, sorted, a page at a time.

const asked = { level: levels[0], show: "all", text: "", inside: null, sort: "score", turned: false, page: 0 };
let shown = [];

const body = el("tbody");
const foot = el("nav", { class: "pages", "aria-label": "Pages" });
const total = el("p", { class: "soft", id: "cases-total" });
const inside = el("p", { class: "inside", hidden: true });
const below = el("p", { class: "soft below" });
const tabs = levels.length > 1
  ? el("div", { class: "buttons levels", role: "group", "aria-label": "What a row is" }, levels.map((level) =>
      el("button", { type: "button", onclick: () => choose({ level, inside: null }) },
        `${title(plural(level.noun))} (${level.total.toLocaleString("en")})`)))
  : null;
const heads = [[null, "Image"], ["name", "Name"], ["score", "Score"], ["p", "p"], [null, "Verdict"], ["doubts", "Doubts"]];
if (labelled) heads.splice(2, 0, [null, "Truth"]);
const head = heads.map(([sort, text]) =>
  sort
    ? el("th", { scope: "col", "data-sort": sort },
        el("button", { type: "button", onclick: () => choose({ sort, turned: asked.sort === sort && !asked.turned }) }, text))
    : el("th", { scope: "col" }, text));
const show = el("select", { "aria-label": "Which cases", onchange: () => choose({ show: show.value }) },
  SHOW.map(([value, text]) => el("option", { value }, text)));
const sorts = el("select", { "aria-label": "Order", class: "phone-only", onchange: () => choose({ sort: sorts.value, turned: false }) },
  Object.entries(SORTS).map(([value, [text]]) => el("option", { value }, text)));
const search = el("input", { type: "search", placeholder: "A part of name or reason", "aria-label": "Find by a part of name or reason", maxLength: 200 });
let typing;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => choose({ text: search.value }), 150);
});
const table = el("table", { class: "results" },
  el("caption", { class: "hidden-text" }, "Cases"), el("thead", {}, el("tr", {}, head)), body);
here.append(
  ...(tabs ? [tabs] : []),
  el("div", { class: "filters" }, show, sorts, search, total),
  inside,
  below,
  table,
  foot,
);

function choose(change) {
  Object.assign(asked, { page: 0 }, change);
  draw();
  announce(count(shown.length, asked.level.noun));
}

function filtered() {
  const keep = SHOW.find(([value]) => value === asked.show)[2];
  const words = asked.text.toLowerCase().trim();
  const rows = asked.level.rows.filter((row) =>
    keep(row) && (!words || row.found.includes(words)) && (!asked.inside || row.within.includes(asked.inside)));
  return rows.sort(SORTS[asked.sort][asked.turned ? 2 : 1]);
}

function draw(again = true) {
  if (again) shown = filtered();
  const { level } = asked;
  table.classList.toggle("bare", !level.rows.some((row) => row.picture));
  show.value = asked.show;
  sorts.value = asked.sort;
  total.textContent = count(shown.length, level.noun);
  if (tabs) [...tabs.children].forEach((tab, i) => tab.setAttribute("aria-pressed", String(levels[i] === level)));
  below.textContent = level.below ? `Below ${level.below}` : "";
  below.hidden = !level.below;
  inside.hidden = !asked.inside;
  if (asked.inside) {
    inside.replaceChildren(`Of ${asked.inside} `,
      el("button", { type: "button", onclick: () => choose({ inside: null }) }, "Show all"));
  }
  for (const one of head) {
    const { sort } = one.dataset;
    if (sort === asked.sort) one.setAttribute("aria-sort", FALLING[sort] !== asked.turned ? "descending" : "ascending");
    else one.removeAttribute("aria-sort");
  }
  const rows = shown.slice(PAGE * asked.page, PAGE * (asked.page + 1)).map(rowOf);
  if (!rows.length) rows.push(el("tr", {}, el("td", { colSpan: heads.length, class: "nothing" }, level.total ? `No ${level.noun} is like that.` : "Nothing was scored.")));
  body.replaceChildren(...rows);
  const pages = Math.ceil(shown.length / PAGE);
  const go = (page, text) =>
    el("button", { type: "button", disabled: page < 0 || page >= pages, onclick: () => turn(page) }, text);
  foot.replaceChildren(...(pages > 1
    ? [go(asked.page - 1, "Earlier page"),
       el("span", {}, `${PAGE * asked.page + 1} to ${Math.min(shown.length, PAGE * (asked.page + 1))} of ${shown.length.toLocaleString("en")}`),
       go(asked.page + 1, "Next page")]
    : []));
}

function turn(page) {
  asked.page = page;
  draw(false);
  here.scrollIntoView();
  announce(`Page ${page + 1}`);
}

const address = (row) => `#${asked.level.noun}/${row.at}`;
const verdict = (row) => row.refusal !== null ? ["refused", "No score"] : row.flag === null ? ["quiet", "No p-value"] : row.flag ? ["flagged", "Flagged"] : ["quiet", "Not flagged"];
const truth = (row) => row.abnormal === null ? NONE : row.kind || (row.abnormal ? "abnormal" : "normal");

function rowOf(row) {
  const picture = el("img", { alt: "", width: 112, height: 56, loading: "lazy", decoding: "async" });
  if (row.picture) picture.src = row.picture;
  else picture.classList.add("none");
  picture.addEventListener("error", () => picture.classList.add("none"));
  const [kind, text] = verdict(row);
  const cell = (label, name, ...content) => el("td", { class: name, "data-label": label }, ...content);
  const small = row.refusal ?? [row.note, ...row.doubts].filter(Boolean).join("; ");
  return el(
    "tr",
    { onclick: (event) => { if (!event.target.closest("a")) location.hash = address(row); } },
    cell("", "thumb", picture),
    cell("", "name", el("a", { href: address(row) }, row.name || "(no name)"), small ? el("small", {}, small) : null),
    labelled ? cell("Truth", "truth", truth(row)) : null,
    cell("Score", "figure", number(row.score)),
    cell("p", "figure", number(row.p)),
    cell("", "verdict", el("span", { class: `tag ${kind}` }, text)),
    cell("Doubts", "figure doubts", row.doubts.length ? String(row.doubts.length) : NONE),
  );
}
