// The panes of the viewer: the same place of image and map, moved and zoomed together.

import { compose, contour, heated, windowed } from "./draw.js";
import { el, onRedraw } from "./dom.js";

const LEAST = 1;
const MOST = 16;

/** Panes that show a view until the signal says that it is left; `settings` has mode, opacity, line and window. */
export class Panes {
  constructor(settings, signal) {
    this.settings = settings;
    this.place = { zoom: 1, x: 0.5, y: 0.5 };
    this.source = this.pane("Image");
    this.map = this.pane("Image under its anomaly map");
    this.trial = this.pane("Map of the model on trial");
    this.box = el("div", { class: "panes" }, this.source.figure, this.map.figure, this.trial.figure);
    this.view = this.other = null;
    onRedraw(this.box, () => this.draw(), signal);
  }

  pane(title) {
    const canvas = el("canvas", { role: "img", "aria-label": title });
    const caption = el("figcaption", {}, title);
    const pane = { canvas, caption, figure: el("figure", { class: "pane" }, canvas, caption) };
    this.listen(canvas);
    return pane;
  }

  listen(canvas) {
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 400));
      },
      { passive: false },
    );
    const held = new Map();
    let apart = 0;
    const distance = () => {
      const [a, b] = [...held.values()];
      return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      if (held.size === 2) apart = distance();
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      held.set(event.pointerId, event);
      if (held.size === 2) {
        const now = distance();
        this.zoom(now / apart);
        apart = now;
        return;
      }
      this.move(event.clientX - before.clientX, event.clientY - before.clientY, canvas);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => held.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.reset());
  }

  zoom(factor) {
    this.place.zoom = Math.min(MOST, Math.max(LEAST, this.place.zoom * factor));
    if (this.place.zoom === LEAST) Object.assign(this.place, { x: 0.5, y: 0.5 });
    this.draw();
  }

  move(dx, dy, canvas) {
    if (this.place.zoom === 1 || !this.view) return;
    const box = canvas.getBoundingClientRect();
    const fit =
      Math.min(box.width / this.view.size[1], box.height / this.view.size[0]) * this.place.zoom;
    const inside = (value) => Math.min(1, Math.max(0, value));
    this.place.x = inside(this.place.x - dx / (fit * this.view.size[1]));
    this.place.y = inside(this.place.y - dy / (fit * this.view.size[0]));
    this.draw();
  }

  reset() {
    Object.assign(this.place, { zoom: 1, x: 0.5, y: 0.5 });
    this.draw();
  }

  /** Show an image, and perhaps the map of another model. */
  show(view, other, label) {
    this.view = view;
    this.other = other;
    for (const one of [view, other]) {
      if (one?.map && !one.heatImage) {
        one.heatImage = heated(one);
        one.lines = contour(one);
      }
    }
    this.map.canvas.setAttribute("aria-label", label);
    this.rewindow();
  }

  rewindow() {
    if (!this.view) return;
    this.image = windowed(this.view, this.settings.window);
    this.grey = this.view.channels === 1 ? this.image : windowed(this.view, this.settings.window, true);
    this.draw();
  }

  draw() {
    if (!this.view || !this.image) return;
    const beside = this.settings.mode === "beside" || !this.view.map;
    this.source.figure.hidden = !beside;
    this.map.figure.hidden = !this.view.map;
    this.trial.figure.hidden = !(this.other?.map && this.settings.trial);
    this.box.dataset.panes = [this.source, this.map, this.trial].filter((p) => !p.figure.hidden).length;
    const shape = `${this.view.size[1]} / ${this.view.size[0]}`;
    for (const pane of [this.source, this.map, this.trial]) pane.canvas.style.aspectRatio = shape;
    if (beside) compose(this.source.canvas, this.view, [{ image: this.image }], this.place);
    for (const [pane, view] of [
      [this.map, this.view],
      [this.trial, this.other],
    ]) {
      if (pane.figure.hidden) continue;
      const layers = [
        { image: this.grey },
        { image: view.heatImage, alpha: this.settings.opacity, smooth: true },
      ];
      if (this.settings.line) layers.push({ lines: view.lines });
      compose(pane.canvas, this.view, layers, this.place);
    }
  }
}
