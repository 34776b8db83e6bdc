// The cases of a page that lies on a disk: elements without markup, so that whatever a file is called stays text; the
// rows; and the ways to filter and to sort them. The three scripts run as one function, see case_list.py.

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
      flag: flag === null ? null : flag === 1,
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
if (!levels.length) levels.push({ noun: "image", total: 0, below: "", rows: [], texts: [] });
const labelled = levels.some((level) => level.rows.some((row) => row.abnormal !== null));

const SHOW = [
  ["all", "All", () => true],
  ["flagged", "Flagged", (row) => row.flag],
  ["refused", "Without a score", (row) => row.refusal !== null],
  ["doubtful", "Doubtful", (row) => row.doubts.length > 0],
];
if (labelled) {
  SHOW.push(
    ["missed", "Abnormal, not flagged", (row) => row.abnormal === 1 && row.flag === false && row.refusal === null],
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
