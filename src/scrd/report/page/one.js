// One case large, with the way to those before and after it.

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
