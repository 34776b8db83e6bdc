// The page: who is signed in, which view is shown, what happens meanwhile.

import { get, session, signIn, signOut } from "./api.js";
import { announce, el, fill } from "./dom.js";
import { listView } from "./list.js";
import { apiView, stateView } from "./state.js";
import { takeDrops } from "./upload.js";
import { resultView } from "./view.js";

const SLOW = 1000; // ms until it is said that a view loads
const main = document.getElementById("main");
let who = null;
let left = new AbortController(); // of the view that is shown or loads
let list = null;
let stream = null;
let slow = 0;

/** Leaves the view that is shown or loads; returns the signal that says the same of the next one. */
function next() {
  left.abort();
  left = new AbortController();
  list = null;
  clearTimeout(slow);
  slow = setTimeout(() => {
    fill(main, el("p", { class: "busy" }, "Loading…"));
    announce("Loading");
  }, SLOW);
  return left.signal;
}

/** Puts into the page what was waited for. */
function put(...children) {
  clearTimeout(slow);
  announce("");
  fill(main, ...children);
}

/** A view fills a place of its own. That comes into the page when it is complete, if it was not left meanwhile. */
async function show() {
  const signal = next();
  delete main.dataset.ready;
  if (!who) return signInView();
  const { hash } = location;
  const [view, id] = hash.replace(/^#\//, "").split("/");
  for (const link of document.querySelectorAll("[data-view]")) {
    const here = link.dataset.view === (view === "" || view === "result" ? "results" : view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = el("div");
  try {
    if (view === "result") await resultView(place, id, who, signal);
    else if (view === "state") await stateView(place, who, signal);
    else if (view === "api") await apiView(place, signal);
    else {
      list = listView(place, await get("/v1/state", signal), who, () => list?.refresh(), signal);
      await list.refresh();
    }
    if (signal.aborted) return;
    put(place);
    main.dataset.ready = hash || "#/";
  } catch (error) {
    if (signal.aborted) return; // 401 leads to the sign-in
    put(el("p", { class: "notice problem", role: "alert" }, error.message), el("a", { class: "button", href: "#/" }, "Back to the list"));
  }
}

function signInView(said = "") {
  const token = el("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  put(
    el(
      "form",
      {
        class: "sign-in",
        onsubmit: async (event) => {
          event.preventDefault();
          try {
            who = await signIn(token.value);
            begin();
          } catch (error) {
            signInView(error.status === 401 ? "There is no such token." : error.message);
          }
        },
      },
      el("h1", {}, "Sign in"),
      el("label", { for: "token" }, "Token"),
      token,
      said ? el("p", { class: "problem", role: "alert" }, said) : null,
      el("button", { class: "main" }, "Sign in"),
    ),
  );
  token.focus();
}

function begin() {
  fill(
    document.getElementById("who"),
    who.tokens ? `${who.name} ` : null,
    who.tokens
      ? el("button", { type: "button", onclick: async () => { await signOut(); who = null; stream?.close(); location.hash = "#/"; location.reload(); } }, "Sign out")
      : null,
  );
  listen();
  show();
}

let soon = 0;
function listen() {
  stream?.close();
  stream = new EventSource("/v1/events");
  stream.addEventListener("job", (message) => {
    const event = JSON.parse(message.data);
    list?.progress(event);
    if (event.status === "done" && list && !soon) {
      soon = setTimeout(() => {
        soon = 0;
        list?.refresh();
      }, 300);
    }
  });
  stream.addEventListener("missed", () => list?.refresh());
}

window.addEventListener("hashchange", show);
window.addEventListener("signed-out", () => {
  if (who) {
    who = null;
    stream?.close();
    next();
    signInView("The sign-in has ended.");
  }
});
get("/v1/state")
  .then((state) => takeDrops(state.limits, () => list?.refresh()))
  .catch(() => takeDrops({ body_bytes: Infinity }, () => list?.refresh()));
next();
session()
  .then((found) => {
    who = found;
    begin();
  })
  .catch((error) => (error.status === 401 ? signInView() : put(el("p", { class: "notice problem" }, error.message))));
