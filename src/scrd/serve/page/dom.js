// Elements made without markup: whatever a file is called, it stays text.

/** An element. Properties that begin with "on" are listeners, "class" and "data-…" attributes. */
export function el(tag, properties = {}, ...children) {
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

/** Put children in the place of those that are there. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((c) => c !== null && c !== undefined));
}

/** The same for elements of which some are there already: those stay in the page, and keep the focus. */
export function arrange(parent, children) {
  for (const child of [...parent.childNodes]) {
    if (!children.includes(child)) child.remove();
  }
  let at = parent.firstChild;
  for (const child of children) {
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
}

let pressed = false;
const waiting = [];
for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
  document.addEventListener(
    kind,
    (event) => {
      pressed = kind !== "pointercancel" && event.buttons > 0;
      if (!pressed) for (const go of waiting.splice(0)) setTimeout(go); // after the click
    },
    true,
  );
}

/** Waits until nothing is pressed: what moves under a finger or a mouse takes the click away. */
export function released() {
  return pressed ? new Promise((go) => waiting.push(go)) : Promise.resolve();
}

/** Draws again what is drawn when its size or the colours of the page change, until the signal. */
export function onRedraw(element, draw, signal) {
  const observer = new ResizeObserver(() => draw());
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(), { signal });
}

/** Say something to whoever cannot see it. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A time in the reader's manner. */
export function when(seconds) {
  return time.format(new Date(1000 * seconds));
}

/** Three significant digits, a dash for what is not there. */
export function number(value) {
  return value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString();
}

/** "1 image", "2 images". */
export function count(many, noun) {
  return `${many} ${noun}${many === 1 ? "" : "s"}`;
}
