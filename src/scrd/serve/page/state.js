// How the service does, which models answer, and what the API offers.

import { get, send } from "./api.js";
import { count, el, fill, number, when } from "./dom.js";
import { watchSection, watchesOf } from "./watches.js";

/** Builds the view of the state in its place. */
export async function stateView(place, who, signal) {
  const state = await get("/v1/state", signal);
  const answering = state.models.filter((version) => version.role === "active");
  const [watches, ...drifts] = await Promise.all([
    watchesOf(signal),
    ...answering.map((version) => driftOf(version.name, signal)),
  ]);
  const today = state.today;
  const tile = (name, value, text) =>
    el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, text ? el("small", {}, text) : null));
  fill(
    place,
    el("h1", {}, "State"),
    el(
      "p",
      { class: state.ready ? "notice good" : "notice problem" },
      state.ready ? "Images are taken." : `No images are taken: ${state.reasons.join("; ")}.`,
    ),
    warning([...drifts.filter((one) => one.alarm).map(alarmsOf), ...watches.map(({ found, alarms }) => [found?.archive, alarms])]),
    el(
      "dl",
      { class: "tiles" },
      tile("Results today", String(today.results)),
      tile("Flagged today", String(today.flagged), today.results ? `${number((100 * today.flagged) / today.results)} %` : ""),
      tile("Without a score", String(today.refused)),
      tile("Doubtful", String(today.doubted)),
      tile("Waiting", String(state.queued), "jobs"),
      tile("Version", state.version, `since ${when(state.started)}`),
    ),
    state.refusals.length
      ? el(
          "section",
          {},
          el("h2", {}, "Why images had no score today"),
          el("ul", {}, state.refusals.map(([text, times]) => el("li", {}, `${text} (${times})`))),
        )
      : null,
    state.failed.length
      ? el(
          "section",
          {},
          el("h2", {}, "Jobs that failed today"),
          el(
            "ul",
            {},
            state.failed.map((job) => el("li", {}, `${when(job.ended)}, ${count(job.files, "file")}: ${job.reason}`)),
          ),
        )
      : null,
    watchSection(watches),
    pValues(state.p_values),
    drift(drifts),
    await models(state.models, who, signal),
  );
}

function pValues(tenths) {
  const total = tenths.reduce((a, b) => a + b, 0);
  const most = Math.max(...tenths, 1);
  const bars = tenths.map((many, i) => {
    const bar = el("div", { class: "p-bar", title: `${i / 10} to ${(i + 1) / 10}: ${many}` });
    bar.style.height = `${Math.max(2, (100 * many) / most)}%`;
    return bar;
  });
  return el(
    "section",
    {},
    el("h2", {}, "p-values"),
    el(
      "p",
      { class: "soft" },
      `Of the last ${count(total, "result")}. Where all images are normal and like those of the training, each tenth holds about as many.`,
    ),
    el(
      "div",
      { class: "p-bars", role: "img", "aria-label": `How many p-values lie in each tenth from 0 to 1: ${tenths.join(", ")}` },
      bars,
    ),
    el("div", { class: "p-axis", "aria-hidden": "true" }, el("span", {}, "0"), el("span", {}, "0.5"), el("span", {}, "1")),
  );
}

async function driftOf(name, signal) {
  try {
    return await get(`/v1/models/${name}/drift`, signal);
  } catch (error) {
    return { name, alarm: 0, line: `not known: ${error.message}` };
  }
}

/** Name and alarms of a model, each with the result that raised it. */
function alarmsOf({ name, alarms, found }) {
  return [
    name,
    alarms.map((text, i) => [`${text} `, el("a", { href: `#/result/${found.alarms[i].result}` }, "Show this result")]),
  ];
}

function warning(said) {
  const lines = said.flatMap(([name, alarms]) => alarms.map((told) => el("li", {}, `${name}: `, told)));
  if (!lines.length) return null;
  return el(
    "div",
    { class: "notice problem", role: "alert", id: "drifted" },
    el("p", {}, "The images seem to have changed: p-values and flags may no longer hold what they promise."),
    el("ul", {}, lines),
  );
}

function drift(said) {
  return el(
    "section",
    { id: "drift" },
    el("h2", {}, "Drift"),
    el(
      "p",
      { class: "soft" },
      "A gambler bets that the images are no longer like the normal ones of the calibration. Without a change the wealth passes 20 in at most 1 of 20 streams.",
    ),
    said.length
      ? el("ul", {}, said.map((one) => el("li", { class: one.alarm ? "problem" : "" }, `${one.name}: ${one.line}`, one.since ? el("small", {}, ` since ${when(one.since)}`) : null)))
      : el("p", { class: "soft" }, "No model answers yet."),
  );
}

const ROLES = { active: "answers", shadow: "on trial", standby: "rests" };

async function models(versions, who, signal) {
  const may = who.role === "manage";
  const said = el("p", { class: "problem", role: "alert" });
  const again = () => window.dispatchEvent(new Event("hashchange"));
  const act = async (work) => {
    try {
      await work();
      again();
    } catch (error) {
      said.textContent = error.message;
    }
  };
  const rows = versions.map((version) => {
    const button = (role, text) =>
      el(
        "button",
        {
          type: "button",
          disabled: !version.loaded || version.role === role || (version.role === "active" && role !== "active"),
          onclick: () => act(() => send("PUT", `/v1/models/${version.name}/${version.fingerprint}`, { role })),
        },
        text,
      );
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, version.name, version.silence ? el("small", {}, version.silence) : null),
      el("td", {}, version.folder),
      el("td", {}, el("code", {}, version.fingerprint.slice(0, 8))),
      el("td", {}, version.loaded ? ROLES[version.role] : "not loaded"),
      may ? el("td", { class: "buttons" }, button("active", "Let answer"), button("shadow", "Try beside"), button("standby", "Let rest")) : null,
    );
  });
  const names = [...new Set(versions.map((version) => version.name))];
  const folder = el("input", { id: "new-folder", required: true, maxLength: 64 });
  const name = el("select", { id: "new-name" }, names.map((one) => el("option", {}, one)));
  const form = el(
    "form",
    {
      class: "load",
      onsubmit: (event) => {
        event.preventDefault();
        act(() => send("POST", `/v1/models/${name.value}`, { folder: folder.value }));
      },
    },
    el("label", { for: "new-name" }, "Model"), name,
    el("label", { for: "new-folder" }, "Folder beside it"), folder,
    el("button", {}, "Load the version"),
  );
  const compared = await Promise.all(
    versions.filter((v) => v.role === "shadow").map(async (v) => comparison(v, await get(`/v1/models/${v.name}/comparison`, signal))),
  );
  return el(
    "section",
    {},
    el("h2", {}, "Models"),
    el(
      "div",
      { class: "wide", tabIndex: 0, role: "group", "aria-label": "Models and versions" },
      el(
        "table",
        { class: "plain" },
        el("thead", {}, el("tr", {}, ["Model", "Folder", "Version", "Does", ...(may ? ["Change"] : [])].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, rows),
      ),
    ),
    said,
    may ? form : null,
    compared,
  );
}

function comparison(version, pairs) {
  const mine = pairs.filter((pair) => pair.shadow === version.fingerprint && pair.flag !== null && pair.shadow_flag !== null);
  const cell = (a, b) => mine.filter((pair) => Boolean(pair.flag) === a && Boolean(pair.shadow_flag) === b);
  const apart = [...cell(true, false), ...cell(false, true)].slice(0, 20);
  return el(
    "section",
    {},
    el("h3", {}, `${version.name}: the version on trial beside the one that answers`),
    el(
      "table",
      { class: "plain" },
      el("thead", {}, el("tr", {}, el("td"), ["On trial: flagged", "On trial: not flagged"].map((t) => el("th", { scope: "col" }, t)))),
      el(
        "tbody",
        {},
        [true, false].map((a) =>
          el("tr", {}, el("th", { scope: "row" }, a ? "Flagged" : "Not flagged"), el("td", {}, String(cell(a, true).length)), el("td", {}, String(cell(a, false).length))),
        ),
      ),
    ),
    apart.length
      ? el("ul", {}, apart.map((pair) => el("li", {}, el("a", { href: `#/result/${pair.id}` }, `p ${number(pair.p_value)}; on trial ${number(pair.shadow_p_value)}`))))
      : null,
  );
}

/** Builds in its place the list of what the API offers, out of its own description. */
export async function apiView(place, signal) {
  const api = await get("/v1/openapi.json", signal);
  const parts = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, what] of Object.entries(methods)) {
      const parameters = (what.parameters ?? []).map((p) =>
        el("li", {}, el("code", {}, p.name), ` in ${p.in}${p.required ? ", required" : ""}${p.description ? `: ${p.description}` : ""}`),
      );
      parts.push(
        el(
          "details",
          { class: "route" },
          el("summary", {}, el("span", { class: "method" }, method.toUpperCase()), " ", el("code", {}, path)),
          el("p", {}, what.description ?? what.summary ?? ""),
          parameters.length ? el("ul", {}, parameters) : null,
          el("p", { class: "soft" }, `Answers: ${Object.keys(what.responses).join(", ")}`),
        ),
      );
    }
  }
  fill(
    place,
    el("h1", {}, "API"),
    el("p", {}, "For programs: ", el("a", { href: "/v1/openapi.json" }, "the description in OpenAPI's form"), ". In Python, ", el("code", {}, "scrd.serve.client.Client"), " speaks it."),
    parts,
  );
}
