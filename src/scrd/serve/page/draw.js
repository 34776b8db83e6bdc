// From the viewer's file to pixels: window, heat map, contour, colour bar.

import { INFERNO } from "./inferno.js";

/** What the service sends of one image: header, grey values, map. */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = Math.ceil((4 + length) / 8) * 8;
  const values = header.width * header.height * header.channels;
  const pixels =
    header.bits === 8 ? new Uint8Array(buffer, at, values) : new Uint16Array(buffer, at, values);
  at = Math.ceil((at + pixels.byteLength) / 8) * 8;
  const cells = header.map ? header.map.width * header.map.height : 0;
  return { ...header, pixels, heat: new Float32Array(buffer, at, cells) };
}

function canvas(width, height) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  return made;
}

/** The image with [low, high] from black to white; in grey if `grey`. */
export function windowed(view, [low, high], grey = false) {
  const made = canvas(view.width, view.height);
  const context = made.getContext("2d");
  const image = context.createImageData(view.width, view.height);
  const [first, last] = view.values;
  const top = view.bits === 8 ? 255 : 65535;
  const table = new Uint8ClampedArray(top + 1);
  const span = high > low ? high - low : 1e-9;
  for (let i = 0; i <= top; i++) {
    table[i] = (255 * (first + ((last - first) * i) / top - low)) / span;
  }
  const { pixels, channels } = view;
  const out = image.data;
  for (let i = 0, o = 0; o < out.length; i += channels, o += 4) {
    if (channels === 1) {
      out[o] = out[o + 1] = out[o + 2] = table[pixels[i]];
    } else {
      out[o] = table[pixels[i]];
      out[o + 1] = table[pixels[i + 1]];
      out[o + 2] = table[pixels[i + 2]];
      if (grey) out[o] = out[o + 1] = out[o + 2] = 0.299 * out[o] + 0.587 * out[o + 1] + 0.114 * out[o + 2];
    }
    out[o + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return made;
}

/** The heat alone; it covers more where it is higher, so that the anatomy stays visible. */
export function heated(view) {
  const { width, height, scale } = view.map;
  const made = canvas(width, height);
  const context = made.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < view.heat.length; i++) {
    const level = Math.min(1, Math.max(0, (view.heat[i] - scale[0]) / (scale[1] - scale[0])));
    const colour = 3 * Math.round(255 * level);
    image.data.set(INFERNO.subarray(colour, colour + 3), 4 * i);
    image.data[4 * i + 3] = 255 * level;
  }
  context.putImageData(image, 0, 0);
  return made;
}

/** The line where the map passes its threshold: marching squares, in parts of width and height. */
export function contour(view) {
  const { width, height, threshold } = view.map;
  const lines = [];
  const cross = (a, b) => (threshold - a) / (b - a);
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const at = (i, j) =>
        view.heat[Math.min(height - 1, Math.max(0, j)) * width + Math.min(width - 1, Math.max(0, i))];
      const [a, b, c, d] = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
      const points = [];
      if (a > threshold !== b > threshold) points.push([x + cross(a, b), y]);
      if (b > threshold !== c > threshold) points.push([x + 1, y + cross(b, c)]);
      if (d > threshold !== c > threshold) points.push([x + cross(d, c), y + 1]);
      if (a > threshold !== d > threshold) points.push([x, y + cross(a, d)]);
      for (let i = 0; i + 1 < points.length; i += 2) {
        lines.push(points[i], points[i + 1]);
      }
    }
  }
  return lines.map(([x, y]) => [(x + 0.5) / width, (y + 0.5) / height]);
}

/** Draw layers into a pane: fitted, then zoomed and moved. */
export function compose(pane, view, layers, place) {
  const ratio = devicePixelRatio || 1;
  const { width, height } = pane.getBoundingClientRect();
  if (pane.width !== Math.round(width * ratio) || pane.height !== Math.round(height * ratio)) {
    pane.width = Math.round(width * ratio);
    pane.height = Math.round(height * ratio);
  }
  const context = pane.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, pane.width, pane.height);
  const fit = Math.min(pane.width / view.size[1], pane.height / view.size[0]) * place.zoom;
  const w = fit * view.size[1];
  const h = fit * view.size[0];
  const left = pane.width / 2 - place.x * w;
  const top = pane.height / 2 - place.y * h;
  for (const layer of layers) {
    if (layer.lines) {
      context.beginPath();
      for (let i = 0; i < layer.lines.length; i += 2) {
        context.moveTo(left + layer.lines[i][0] * w, top + layer.lines[i][1] * h);
        context.lineTo(left + layer.lines[i + 1][0] * w, top + layer.lines[i + 1][1] * h);
      }
      for (const [colour, line] of [["#000", 4], ["#00e5ff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = line * ratio;
        context.stroke();
      }
      continue;
    }
    context.globalAlpha = layer.alpha ?? 1;
    // single pixels are to be seen when they are large
    context.imageSmoothingEnabled = layer.smooth ?? fit * view.size[1] < 4 * view.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(layer.image, left, top, w, h);
    context.globalAlpha = 1;
  }
}

/** The colour bar, with its threshold and unit. */
export function colourBar(bar, view, colour) {
  const ratio = devicePixelRatio || 1;
  const box = bar.getBoundingClientRect();
  bar.width = Math.round(box.width * ratio);
  bar.height = Math.round(box.height * ratio);
  const context = bar.getContext("2d");
  context.scale(ratio, ratio);
  const [low, high] = view.map.scale;
  const left = 12;
  const wide = box.width - 2 * left;
  for (let x = 0; x < wide; x++) {
    const c = 3 * Math.round((255 * x) / wide);
    context.fillStyle = `rgb(${INFERNO[c]},${INFERNO[c + 1]},${INFERNO[c + 2]})`;
    context.fillRect(left + x, 4, 1.5, 14);
  }
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillStyle = colour;
  const at = (value) => left + (wide * (value - low)) / (high - low);
  const { threshold } = view.map;
  const inside = threshold >= low && threshold <= high;
  for (let i = 0; i < 5; i++) {
    const value = low + ((high - low) * i) / 4;
    if (inside && Math.abs(at(value) - at(threshold)) < 34) continue;
    context.textAlign = ["left", "center", "center", "center", "right"][i];
    const edge = i === 0 ? 0 : i === 4 ? box.width : at(value);
    context.fillText(Number(value.toPrecision(3)), edge, 34);
  }
  context.textAlign = "center";
  if (inside) {
    context.fillText(Number(threshold.toPrecision(3)), at(threshold), 34);
    context.fillStyle = "#00e5ff";
    context.strokeStyle = "#000";
    context.fillRect(at(threshold) - 1.5, 1, 3, 20);
    context.strokeRect(at(threshold) - 2, 0.5, 4, 21);
  }
}
