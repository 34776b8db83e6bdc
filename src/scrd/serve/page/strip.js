// The slices of a series: a bar each, as high as its score.

import { el, number, onRedraw } from "./dom.js";

/** A strip of slices, and a slider for keyboards and fingers, until the signal says that it is left. */
export function strip(images, onselect, signal) {
  const canvas = el("canvas", { role: "img" });
  const slider = el("input", {
    type: "range",
    min: 1,
    max: images.length,
    step: 1,
    "aria-label": "Slice",
    oninput: () => onselect(Number(slider.value) - 1),
  });
  const words = el("p", { class: "soft" });
  const known = images.map((image) => image.score).filter((score) => score !== null);
  const low = Math.min(0, ...known);
  const high = Math.max(...known, low + 1e-9);
  let chosen = 0;
  canvas.setAttribute("aria-label", `Score of each of ${images.length} slices, from ${number(Math.min(...known))} to ${number(high)}`);

  const pick = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = canvas.getBoundingClientRect();
    const at = Math.floor((images.length * (event.clientX - box.left)) / box.width);
    onselect(Math.min(images.length - 1, Math.max(0, at)));
  };
  canvas.addEventListener("pointerdown", pick);
  canvas.addEventListener("pointermove", pick);

  function draw() {
    const ratio = devicePixelRatio || 1;
    const box = canvas.getBoundingClientRect();
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const wide = canvas.width / images.length;
    images.forEach((image, i) => {
      const part = image.score === null ? 1 : Math.max(0.04, (image.score - low) / (high - low));
      const name = image.score === null ? "--none" : image.flag ? "--found" : "--bar";
      context.globalAlpha = image.score === null ? 0.35 : 1;
      context.fillStyle = style.getPropertyValue(name);
      const tall = part * (canvas.height - 4 * ratio);
      context.fillRect(i * wide, canvas.height - tall, Math.max(1, wide - (wide > 4 ? ratio : 0)), tall);
    });
    context.globalAlpha = 1;
    context.strokeStyle = style.getPropertyValue("--text");
    context.lineWidth = 2 * ratio;
    context.strokeRect(chosen * wide + ratio, ratio, Math.max(wide - 2 * ratio, 2), canvas.height - 2 * ratio);
  }
  onRedraw(canvas, draw, signal);

  return {
    box: el("div", { class: "strip" }, canvas, slider, words),
    select(at) {
      chosen = at;
      slider.value = at + 1;
      const image = images[at];
      const said = image.score === null ? image.refusal : `score ${number(image.score)}, p ${number(image.p_value)}${image.flag ? ", flagged" : ""}`;
      words.textContent = `Slice ${at + 1} of ${images.length}: ${said}`;
      draw();
    },
  };
}
