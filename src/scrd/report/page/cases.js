// The list of cases of a page that lies on a disk: filtered, sorted, a page at a time, and one case large.
// Whatever a file is called, it stays text: elements are made, markup is never put together.
"use strict";
(() => {
  const PAGE = 50;
  const NONE = "\u2013";
  const here = document.getElementById("cases-here");

  /** An element. Properties that begin with "on" are listeners, "class" and "data-…" attributes. */
  function el(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name === "class") made.className = value;
      else if (name in made && !name.includes("-")) made[name] = value;
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  }
  const number = (value) => (value === null ? NONE : Number(value.toPrecision(3)).toString());
  const announce = (text) => (document.getElementById("cases-live").textContent = text);
  const plural = (noun) => ({ study: "studies", series: "series" })[noun] ?? `${noun}s`;
  const count = (many, noun) => `${many.toLocaleString("en")} ${many === 1 ? noun : plural(noun)}`;
  const title = (word) => word[0].toUpperCase() + word.slice(1);

  const levels = JSON.parse(document.getElementById("cases-data").textContent).map((level) => {
    const rows = level.rows.map((cells, at) => {
      const [name, score, p, flag, doubts, refusal, picture, note, within, abnormal, kind] = cells;
      const row = {
        at, name, score, p, picture, abnormal,
        flag: flag === 1,
        doubts: doubts.map((i) => level.texts[i]),
        refusal: refusal === null ? null : level.texts[refusal],
        note: level.texts[note],
        within: within.map((i) => level.texts[i]),
        kind: level.texts[kind],
      };
      row.found = [name, row.refusal ?? "", ...row.doubts, row.kind, ...row.within].join("\n").toLowerCase();
      return row;
    });
    return { ...level, rows };
  });
  if (!levels.length) {
    here.append(el("p", { class: "nothing" }, "Nothing was scored."));
    return;
  }
  const labelled = levels.some((level) => level.rows.some((row) => row.abnormal !== null));

  const SHOW = [
    ["all", "All", () => true],
    ["flagged", "Flagged", (row) => row.flag],
    ["refused", "Without a score", (row) => row.refusal !== null],
    ["doubtful", "Doubtful", (row) => row.doubts.length > 0],
  ];
  if (labelled) {
    SHOW.push(
      ["missed", "Abnormal, not flagged", (row) => row.abnormal === 1 && !row.flag && row.refusal === null],
      ["alarms", "Normal, flagged", (row) => row.abnormal === 0 && row.flag],
    );
  }
  const collator = new Intl.Collator("en", { numeric: true });
  const by = (value, least) => (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // without a value: last, always
    return least ? x - y : y - x;
  };
  // [what it sorts by, its word in the choice for phones, how]; the second way is the other way round
  const SORTS = {
    score: ["By score", by((row) => row.score), by((row) => row.score, true)],
    p: ["By p", by((row) => row.p, true), by((row) => row.p)],
    name: ["By name", (a, b) => collator.compare(a.name, b.name), (a, b) => collator.compare(b.name, a.name)],
    doubts: ["By doubts", by((row) => row.doubts.length), by((row) => row.doubts.length, true)],
  };
  const FALLING = { score: true, p: false, name: false, doubts: true };

  const asked = { level: levels[0], show: "all", text: "", inside: null, sort: "score", turned: false, page: 0 };
  let shown = [];

  // ------------------------------------------------------------------------------------ the list

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
  here.append(
    ...(tabs ? [tabs] : []),
    el("div", { class: "filters" }, show, sorts, search, total),
    inside,
    below,
    el("table", { class: "results" },
      el("caption", { class: "hidden-text" }, "Cases"), el("thead", {}, el("tr", {}, head)), body),
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
    if (!rows.length) rows.push(el("tr", {}, el("td", { colSpan: heads.length, class: "nothing" }, `No ${level.noun} is like that.`)));
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
  const verdict = (row) => row.refusal !== null ? ["refused", "No score"] : row.flag ? ["flagged", "Flagged"] : ["quiet", "Not flagged"];
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

  // ------------------------------------------------------------------------------------ one case

  const box = el("dialog", { class: "one-case", "aria-labelledby": "case-name" });
  document.body.append(box);
  let open = null;
  let came = false; // from this list, so that going back leads to it

  box.addEventListener("close", () => {
    if (!open) return;
    const row = open;
    open = null;
    const at = shown.indexOf(row);
    if (at >= 0 && asked.page !== Math.floor(at / PAGE)) {
      asked.page = Math.floor(at / PAGE);
      draw(false);
    }
    if (came) history.back();
    else location.replace("#cases");
    const link = body.querySelectorAll("td.name a")[at % PAGE];
    if (link) link.focus({ preventScroll: false });
  });

  function follow() {
    const [, noun, at] = /^#(\w+)\/(\d+)$/.exec(location.hash) ?? [];
    const level = levels.find((one) => one.noun === noun);
    const row = level?.rows[at];
    if (!row) {
      came = true; // whatever opens next was opened from here
      if (open) {
        open = null;
        box.close();
      }
      return;
    }
    if (level !== asked.level || !shown.includes(row)) {
      Object.assign(asked, { level, show: "all", text: "", inside: null, page: 0 });
      search.value = "";
      draw();
    }
    present(row);
  }

  function step(by) {
    const next = shown[shown.indexOf(open) + by];
    if (next) location.replace(address(next));
    else announceIn(by > 0 ? "This is the last one of the list." : "This is the first one of the list.");
  }

  function announceIn(text) {
    box.querySelector("[role=status]").textContent = text;
  }

  function present(row) {
    open = row;
    const at = shown.indexOf(row);
    const [kind, word] = verdict(row);
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.step : null;
    const button = (text, by, key) =>
      el("button", { type: "button", "data-step": by, disabled: !shown[at + by], title: `Key: ${key}`, onclick: () => step(by) }, text);
    const facts = [["Score", number(row.score)], ["p-value", number(row.p)]];
    if (row.abnormal !== null) facts.push(["Truth", row.kind && row.kind !== "normal" ? `${row.abnormal ? "abnormal" : "normal"} (${row.kind})` : row.abnormal ? "abnormal" : "normal"]);
    if (row.note) facts.push([asked.level.noun === "image" ? "Note" : "Images", row.note]);
    row.within.forEach((name, i) => facts.push([["Series", "Study"].slice(-row.within.length)[i], name]));
    if (asked.level.below) facts.push(["Folder", asked.level.below]);
    const parts = levels.find((level) => level.noun === "image");
    const path = row.picture;
    const missing = row.refusal !== null ? "There is no heat map without a score." : "No heat map was written for it.";
    const picture = path
      ? el("a", { href: path, target: "_blank", rel: "noopener", title: "The picture alone" },
          el("img", { src: path, alt: `${row.name}: the image, and beside it the image under its heat map` }))
      : el("p", { class: "soft" }, missing);
    const stage = el("div", { class: path ? "stage" : "stage empty" }, picture);
    picture.firstElementChild?.addEventListener("error", () => {
      stage.className = "stage empty";
      stage.replaceChildren(el("p", { class: "soft" }, "Its heat map is not there any more."));
    });
    box.replaceChildren(
      el("div", { class: "bar-top" },
        el("button", { type: "button", onclick: () => box.close(), title: "Key: Esc" }, "Back to the list"),
        el("h2", { id: "case-name", tabIndex: -1 }, row.name || "(no name)"),
        el("span", { class: `tag ${kind}` }, word),
        el("span", { class: "step" }, button("Previous", -1, "k or ←"), button("Next", 1, "j or →"))),
      el("div", { class: "viewer" },
        stage,
        el("div", { class: "aside" },
          el("p", { class: "soft" }, `${(at + 1).toLocaleString("en")} of ${count(shown.length, asked.level.noun)}`),
          row.refusal === null ? null : el("h3", {}, "Why there is no score"),
          row.refusal === null ? null : el("p", { class: "notice" }, row.refusal),
          el("dl", { class: "facts" }, facts.map(([t, d]) => el("div", {}, el("dt", {}, t), el("dd", {}, d)))),
          row.doubts.length ? el("h3", {}, "Doubts") : null,
          row.doubts.length ? el("ul", { class: "doubts-list" }, row.doubts.map((text) => el("li", {}, text))) : null,
          parts && asked.level !== parts
            ? el("button", { type: "button", onclick: () => into(row, parts) }, "Show its images")
            : null,
          el("p", { class: "soft", role: "status" }))),
    );
    if (!box.open) box.showModal();
    const again = focused && box.querySelector(`[data-step="${focused}"]:not(:disabled)`);
    (again || box.querySelector("h2")).focus();
    const next = shown[at + 1];
    if (next?.picture) new Image().src = next.picture;
  }

  function into(row, level) {
    open = null;
    box.close();
    location.replace("#cases");
    choose({ level, show: "all", text: "", inside: row.name === "" ? null : fullName(row), sort: "score", turned: false });
    search.value = "";
  }
  const fullName = (row) => levels.find((level) => level.rows.includes(row)).below + row.name;

  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
  addEventListener("hashchange", follow);
  draw();
  follow();
})();
