// One result: image and map, slices, why, mark, downloads.

import { bytes, get, send } from "./api.js";
import { announce, count, el, fill, number, onRedraw, when } from "./dom.js";
import { colourBar, decode } from "./draw.js";
import { shown, verdict } from "./list.js";
import { Panes } from "./panes.js";
import { strip } from "./strip.js";

const narrow = matchMedia("(max-width: 44rem)").matches;
const settings = { mode: narrow ? "over" : "beside", opacity: 0.8, line: true, trial: false, window: [0, 255] };

/** Builds the view in its place, for as long as the signal does not say that it is left. */
export async function resultView(place, id, who, signal) {
  const result = await get(`/v1/results/${id}`, signal);
  const images = result.per_image;
  const panes = new Panes(settings, signal);
  const scores = images.map((image) => image.score ?? -Infinity);
  let slice = Math.max(0, scores.indexOf(Math.max(...scores)));
  const views = new Map();
  let trialSaid = "";
  const trialViews = new Map();
  const aside = el("div", { class: "aside" });
  const bar = el("canvas", { class: "bar", role: "img" });
  const barWords = el("p", { class: "soft bar-words" });
  const slices = images.length > 1 ? strip(images, (at) => go(at), signal) : null;
  const problem = el("p", { class: "notice problem", hidden: true, role: "alert" });
  const controls = makeControls();
  const [kind, word] = verdict(result);

  fill(
    place,
    el(
      "div",
      { class: "bar-top" },
      el("a", { class: "button", href: "#/" }, "Back to the list"),
      el("h1", {}, result.name || "(no name)"),
      el("span", { class: `tag ${kind}` }, result.shadow ? "on trial: no verdict" : word),
      el(
        "span",
        { class: "step" },
        el("button", { type: "button", onclick: () => step(-1), title: "Key: k" }, "Previous"),
        el("button", { type: "button", onclick: () => step(1), title: "Key: j" }, "Next"),
      ),
    ),
    problem,
    el(
      "div",
      { class: "viewer" },
      el("div", { class: "stage" }, panes.box, slices?.box, el("div", { class: "legend" }, bar, barWords), controls.box),
      aside,
    ),
  );
  aside.append(...facts(), why(), marking(), downloads(), help());
  document.addEventListener("keydown", keys, { signal });
  onRedraw(bar, legend, signal);
  go(slice); // it says itself what went wrong, and nobody has to wait for it to leave

  function legend() {
    const view = views.get(slice);
    const there = Boolean(view?.map);
    bar.parentElement.hidden = !there;
    if (!there) return;
    colourBar(bar, view, getComputedStyle(document.body).color);
    const [low, high] = view.map.scale.map(number);
    bar.setAttribute("aria-label", `Colour bar of the anomaly map, ${low} to ${high} ${view.map.unit}`);
    fill(
      barWords,
      `Anomaly map, in ${view.map.unit}. `,
      el("span", { class: "line-words" }, "Contour"),
      `: the map is above ${number(view.map.threshold)}. In ${number(100 * view.map.false_alarm_rate)} % of normal images it gets that high anywhere.`,
    );
  }

  async function go(at) {
    if (result.kind === "file") {
      place.querySelector(".stage").hidden = true; // there is no image in it
      return;
    }
    slice = Math.min(images.length - 1, Math.max(0, at));
    const mine = slice;
    slices?.select(slice);
    try {
      const wanted = [load(views, id, mine)];
      if (result.counterpart && settings.trial) wanted.push(load(trialViews, result.counterpart, mine));
      const [view, other] = await Promise.all(wanted);
      if (other && !trialSaid) {
        const trial = await get(`/v1/results/${result.counterpart}`, signal);
        trialSaid = `Model on trial, no verdict: score ${number(trial.score)}, p ${number(trial.p_value)}`;
        panes.trial.caption.textContent = trialSaid;
      }
      if (mine !== slice) return;
      problem.hidden = true;
      if (!controls.touched) settings.window = [...view.window];
      controls.update(view);
      panes.show(view, other ?? null, label(view));
      legend();
      aside.querySelector("#why").replaceWith(why(view));
      aside.querySelector("#downloads").replaceWith(downloads());
    } catch (error) {
      if (mine !== slice) return;
      problem.textContent = `The image cannot be shown: ${error.message}`;
      problem.hidden = false;
    }
    for (const near of [slice + 1, slice - 1]) {
      if (near >= 0 && near < images.length) load(views, id, near).catch(() => {});
    }
  }

  async function load(kept, of, at) {
    if (!kept.has(at)) {
      if (kept.size > 24) kept.delete(kept.keys().next().value);
      kept.set(at, decode(await bytes(`/v1/results/${of}/view.bin?slice=${at}`, signal)));
    }
    return kept.get(at);
  }

  function label(view) {
    const part = images.length > 1 ? `slice ${slice + 1} of ${images.length}, ` : "";
    return `Anomaly map, ${part}highest ${number(view.heat.length ? view.heat.reduce((a, b) => Math.max(a, b)) : null)}`;
  }

  function step(by) {
    const at = shown.findIndex((one) => one.id === id);
    const next = shown[at + by];
    if (at >= 0 && next) location.hash = `#/result/${next.id}`;
    else announce(by > 0 ? "This is the last one of the list" : "This is the first one of the list");
  }

  function facts() {
    const series = result.series?.verdict;
    const study = result.study?.verdict;
    const rows = [
      ["Score", number(result.score)],
      ["p-value", number(result.p_value)],
      ["Images", String(result.images)],
      ["Model", `${result.model}, version ${result.fingerprint.slice(0, 8)}`],
      ["Scored", when(result.created)],
    ];
    if (series) rows.push(["Series", judged(series)]);
    if (study) rows.push(["Study", judged(study)]);
    const refusals = [...new Set(images.map((i) => i.refusal).filter(Boolean))];
    const doubts = [...new Set([...(result.series?.problems ?? []), ...images.flatMap((i) => i.doubts)])];
    const list = (title, texts, name) =>
      texts.length
        ? [el("h2", {}, title), el("ul", { class: name }, texts.map((t) => el("li", {}, t)))]
        : [];
    return [
      el("dl", { class: "facts" }, rows.map(([t, d]) => el("div", {}, el("dt", {}, t), el("dd", {}, d)))),
      ...list(images.length > 1 ? "Images without a score" : "Why there is no score", refusals, "problems"),
      ...list("Doubts", doubts, "doubts"),
    ];
  }

  function judged(v) {
    const word = v.flag ? "flagged" : "not flagged";
    return `${word}, score ${number(v.score)}, p ${number(v.p_value)}, ${count(v.images, "image")}${v.how === "bonferroni" ? " (blunt: the model knows none of this size)" : ""}`;
  }

  function why(view) {
    const image = images[slice];
    const told = view?.why ?? [];
    const part = images.length > 1 ? `, slice ${slice + 1}` : "";
    return el(
      "section",
      { id: "why" },
      told.length ? el("h2", {}, `${image.flag ? "Why it is flagged" : "Why it is not flagged"}${part}`) : null,
      el("ul", {}, told.map((text) => el("li", {}, text))),
    );
  }

  function marking() {
    if (result.shadow) return el("p", { class: "soft" }, "A model on trial: what it says is no verdict.");
    const said = el("p", { class: "soft", role: "status" });
    const comment = el("textarea", { rows: 2, maxLength: 2000, id: "comment", value: result.mark?.comment ?? "" });
    const buttons = ["right", "wrong"].map((word) =>
      el(
        "button",
        { type: "button", "data-mark": word, "aria-pressed": String(result.mark?.verdict === word), onclick: () => put(word) },
        word === "right" ? "Right" : "Wrong",
      ),
    );
    const undo = el("button", { type: "button", hidden: !result.mark, onclick: () => put(null) }, "Take the mark away");
    async function put(word) {
      try {
        if (word) await send("PUT", `/v1/results/${id}/mark`, { verdict: word, comment: comment.value });
        else await send("DELETE", `/v1/results/${id}/mark`);
        result.mark = word ? { verdict: word, comment: comment.value } : null;
        for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mark === word));
        undo.hidden = !word;
        said.textContent = word ? `Marked as ${word}.` : "The mark is gone.";
      } catch (error) {
        said.textContent = error.message;
      }
    }
    const off = who.role === "read";
    for (const button of [...buttons, undo]) button.disabled = off;
    comment.disabled = off;
    return el(
      "section",
      { class: "marking" },
      el("h2", {}, "Was the software right?"),
      el("div", { class: "buttons" }, buttons, undo),
      el("label", { for: "comment" }, "Comment"),
      comment,
      el("p", { class: "soft" }, "Kept beside the result. Nothing is trained on it."),
      said,
    );
  }

  function downloads() {
    const link = (text, path) => el("li", {}, el("a", { href: `/v1/results/${id}/${path}` }, text));
    if (result.kind === "file") return el("div", { id: "downloads" });
    const scored = images[slice].score !== null;
    return el(
      "section",
      { id: "downloads" },
      el("h2", {}, "Files"),
      el(
        "ul",
        { class: "files" },
        link("Image as PNG", `source.png?slice=${slice}`),
        scored ? link("Overlay as PNG", `overlay.png?slice=${slice}`) : null,
        scored ? link("Map as NumPy array", `map.npy?slice=${slice}`) : null,
        scored && result.series?.volume ? link("Maps as NIfTI volume", "map.nii.gz") : null,
        ...(scored && result.series?.format === "DICOM" && !result.shadow
          ? [link("DICOM report", "dicom/sr"), link("DICOM segmentation", "dicom/seg"), link("DICOM overlay", "dicom/sc")]
          : []),
      ),
    );
  }

  function help() {
    const keysOf = [
      ["← →", "slice before, slice after"], ["j, k", "next result, previous one"], ["+ −", "larger, smaller"],
      ["0", "whole image"], ["b", "side by side or overlaid"], ["o", "heat map off and on"],
      ["c", "contour off and on"], ["Esc", "back to the list"],
    ];
    return el(
      "details",
      { class: "keys" },
      el("summary", {}, "Keys"),
      el("dl", {}, keysOf.map(([k, text]) => el("div", {}, el("dt", {}, k), el("dd", {}, text)))),
    );
  }

  function makeControls() {
    const range = (text, name, properties, oninput) => {
      const out = el("output", { for: name });
      const input = el("input", { type: "range", id: name, ...properties, oninput: () => oninput(Number(input.value)) });
      return { input, out, box: el("div", { class: "control" }, el("label", { for: name }, text), input, out) };
    };
    let strength = settings.opacity || 0.8;
    const opacity = range("Heat map", "opacity", { min: 0, max: 1, step: 0.05, value: settings.opacity }, (v) => {
      settings.opacity = v;
      opacity.out.textContent = `${Math.round(100 * v)} %`;
      panes.draw();
    });
    opacity.out.textContent = `${Math.round(100 * settings.opacity)} %`;
    const change = () => {
      made.touched = true;
      const [middle, width] = [Number(level.input.value), Math.max(Number(wide.input.value), 1e-6)];
      settings.window = [middle - width / 2, middle + width / 2];
      told();
      panes.rewindow();
    };
    const level = range("Level", "level", {}, change);
    const wide = range("Window", "window", {}, change);
    let unit = "";
    let coarse = true;
    const told = () => {
      for (const one of [level, wide]) {
        const value = Number(one.input.value);
        one.out.textContent = `${coarse ? Math.round(value) : number(value)}${unit}`;
      }
    };
    const reset = el("button", { type: "button", onclick: () => { made.touched = false; panes.reset(); go(slice); } }, "Reset");
    const toggle = (text, get_, set) => {
      const button = el("button", { type: "button", "aria-pressed": String(get_()), onclick: () => { set(); sync(); panes.draw(); } }, text);
      return { button, sync: () => button.setAttribute("aria-pressed", String(get_())) };
    };
    const beside = toggle("Side by side", () => settings.mode === "beside", () => {
      settings.mode = settings.mode === "beside" ? "over" : "beside";
    });
    const line = toggle("Contour", () => settings.line, () => (settings.line = !settings.line));
    const trial = toggle("Model on trial", () => settings.trial, () => {
      settings.trial = !settings.trial;
      go(slice);
    });
    trial.button.hidden = !result.counterpart || result.shadow;
    const sync = () => [beside, line, trial].forEach((one) => one.sync());
    const made = {
      touched: false,
      beside, line,
      heat() {
        if (settings.opacity > 0) strength = settings.opacity;
        opacity.input.value = settings.opacity > 0 ? 0 : strength;
        opacity.input.dispatchEvent(new Event("input"));
      },
      update(view) {
        unit = view.unit === "HU" ? " HU" : "";
        const [low, high] = view.values;
        coarse = high - low > 50;
        const stepping = coarse ? 1 : (high - low) / 500 || 1;
        Object.assign(level.input, { min: low, max: high, step: stepping });
        Object.assign(wide.input, { min: stepping, max: Math.max(high - low, settings.window[1] - settings.window[0]), step: stepping });
        level.input.value = (settings.window[0] + settings.window[1]) / 2;
        wide.input.value = settings.window[1] - settings.window[0];
        told();
        for (const one of [opacity.box, line.button, beside.button]) one.hidden = !view.map;
      },
      box: el(
        "div",
        { class: "controls" },
        el(
          "div",
          { class: "buttons" },
          beside.button, line.button, trial.button,
          el("button", { type: "button", onclick: () => panes.zoom(1.4), "aria-label": "Zoom in" }, "+"),
          el("button", { type: "button", onclick: () => panes.zoom(1 / 1.4), "aria-label": "Zoom out" }, "−"),
          reset,
        ),
        opacity.box, level.box, wide.box,
      ),
    };
    return made;
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName, type } = event.target;
    const slider = tagName === "INPUT" && type === "range";
    if (slider && /^(Arrow|Page|Home|End)/.test(event.key)) return;
    if (!slider && /^(INPUT|TEXTAREA|SELECT)$/.test(tagName) && event.key !== "Escape") return;
    const acts = {
      ArrowLeft: () => images.length > 1 && go(slice - 1),
      ArrowRight: () => images.length > 1 && go(slice + 1),
      j: () => step(1),
      k: () => step(-1),
      "+": () => panes.zoom(1.4),
      "=": () => panes.zoom(1.4),
      "-": () => panes.zoom(1 / 1.4),
      0: () => panes.reset(),
      b: () => controls.beside.button.click(),
      c: () => controls.line.button.click(),
      o: () => controls.heat(),
      Escape: () => (location.hash = "#/"),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }
}
