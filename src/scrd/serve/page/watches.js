// What watches of archives did today, by the state files that they leave.

import { get } from "./api.js";
import { el, number, when } from "./dom.js";

const REASONS = 5;
const OPEN = 10; // so many flagged studies are shown unasked
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

/** All watches that the service was told of; where they cannot be asked for, why. */
export async function watchesOf(signal) {
  try {
    return await get("/v1/watches", signal);
  } catch (error) {
    return [{ state: "", problem: `Nothing is known of watches: ${error.message}`, alarms: [], found: null }];
  }
}

/** The section of the watches; null where there is none. */
export function watchSection(watches) {
  if (!watches.length) return null;
  return el("section", { id: "watches" }, el("h2", {}, "Watches"), watches.map(one));
}

function one({ state, problem, line, alarms, found }) {
  if (!found) return el("p", { class: "notice problem" }, problem);
  const tile = (name, value, text) =>
    el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, String(value), text ? el("small", {}, text) : null));
  const total = (reasons) => Object.values(reasons).reduce((a, b) => a + b, 0);
  const facts = [
    ["Contact", contact(found)],
    ["Queue", queue(found)],
    found.median_seconds === null ? null : ["Speed", `a study ${number(found.median_seconds)} s (median), ${number(found.p95_seconds)} s (95 %)`],
    found.free_bytes === null ? null : ["Disk", `${(found.free_bytes / 1e9).toFixed(1)} GB free after the last study, ${when(found.last)}`],
    found.flag_rate ? ["Flags", flags(found.flag_rate)] : null,
    ["Drift", el("span", { class: alarms.length ? "problem" : "" }, line)],
    ["Process", process(found)],
    ["State file", el("code", {}, state)],
  ];
  return el(
    "section",
    { class: "watch" },
    el("h3", {}, found.archive),
    el("p", { class: `notice ${found.health === "well" ? "good" : "problem"}` }, `${found.health[0].toUpperCase()}${found.health.slice(1)}: ${found.told}.`),
    el(
      "dl",
      { class: "tiles" },
      tile("Studies today", found.processed, `${found.done} scored`),
      tile("Flagged today", found.flagged, found.done ? `${number((100 * found.flagged) / found.done)} %` : ""),
      tile("Refused today", total(found.refused)),
      tile("Failed today", total(found.failed)),
      tile("Waiting", found.waiting, found.arriving ? `${found.arriving} more are arriving` : "studies"),
    ),
    reasons("Why studies were refused today", found.refused),
    reasons("Why studies failed today", found.failed),
    list(
      "Tried again",
      found.retried.map(({ at, reason }) => `${when(at)}: ${reason}`),
    ),
    flagged(found),
    el("dl", { class: "facts" }, facts.filter(Boolean).map(([name, ...told]) => el("div", {}, el("dt", {}, name), el("dd", {}, told)))),
  );
}

function contact({ contacted, trouble }) {
  const last = contacted === null ? "never" : when(contacted);
  return trouble ? `${last}; since then: ${trouble}` : last;
}

function queue({ waiting: many, oldest, in_hand: study, begun }) {
  const since = oldest === null ? "" : `, the oldest since ${when(oldest)}`;
  const hand = study === null ? "" : `; ${study} in hand since ${when(begun)}`;
  return `${many === 1 ? "1 study" : `${many} studies`}${since}${hand}`;
}

function flags({ rate, limits, expected, expected_limits: of, compared }) {
  const percent = (share) => `${(100 * share).toFixed(1)}`;
  const between = ([low, high]) => `${percent(low)} to ${percent(high)} %`;
  return `${percent(rate)} % of the studies (95 % limits ${between(limits)}); calibrated, of normal ones, ${percent(expected)} % (${between(of)}): ${compared} the limits`;
}

function process({ version, pid, started, ended, model, model_folder: folder }) {
  if (version === null) return "none of this version ran yet";
  const end = ended === null ? "" : `, ended ${when(ended)}`;
  return `scrd ${version}, process ${pid} since ${when(started)}${end}; model ${model.slice(0, 8)}${folder ? ` in ${folder}` : ""}`;
}

function reasons(title, given) {
  return list(
    title,
    Object.entries(given).map(([reason, times]) => `${reason} (${times})`),
  );
}

function list(title, texts) {
  if (!texts.length) return null;
  const more = texts.length - REASONS;
  return el(
    "section",
    {},
    el("h4", {}, title),
    el("ul", {}, texts.slice(0, REASONS).map((text) => el("li", {}, text)), more > 0 ? el("li", { class: "soft" }, `and ${more} more`) : null),
  );
}

function flagged({ flagged: many, flagged_studies: studies }) {
  if (!studies.length) return null;
  const newest = many > studies.length ? `, the newest ${studies.length}` : "";
  const row = (study) =>
    el(
      "tr",
      {},
      el("td", { class: "time" }, clock.format(new Date(1000 * study.at))),
      el("th", { scope: "row" }, el("code", {}, study.study)),
      [number(study.p_value), number(study.score), String(study.images)].map((text) => el("td", { class: "figure" }, text)),
    );
  return el(
    "details",
    { open: studies.length <= OPEN },
    el("summary", {}, `Studies flagged today${newest}`),
    el("p", { class: "soft" }, "A study is named by the first 12 digits of the SHA-256 of its UID."),
    el(
      "div",
      { class: "wide", tabIndex: 0, role: "group", "aria-label": "Studies flagged today" },
      el(
        "table",
        { class: "plain" },
        el("thead", {}, el("tr", {}, ["When", "Study", "p", "Score", "Images"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, studies.map(row)),
      ),
    ),
  );
}
