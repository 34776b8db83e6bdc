// The page: who is signed in, which view is shown, what happens meanwhile.

import { get, session, signIn, signOut } from "./api.js";
import { el, fill } from "./dom.js";
import { listView } from "./list.js";
import { apiView, stateView } from "./state.js";
import { takeDrops } from "./upload.js";
import { resultView } from "./view.js";

const main = document.getElementById("main");
let who = null;
let leave = null;
let list = null;
let stream = null;

let wanted = 0;
let showing = Promise.resolve();

/** Views come one after the other: a late answer never takes the place of what was asked for since. */
function show() {
  const mine = ++wanted;
  showing = showing.then(() => (mine === wanted ? render() : null));
}

async function render() {
  if (leave) leave();
  leave = list = null;
  if (!who) return signInView();
  const { hash } = location;
  const [view, id] = hash.replace(/^#\//, "").split("/");
  for (const link of document.querySelectorAll("[data-view]")) {
    const here = link.dataset.view === (view === "" || view === "result" ? "results" : view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    if (view === "result") leave = await resultView(main, id, who);
    else if (view === "state") await stateView(main, who);
    else if (view === "api") await apiView(main);
    else {
      list = listView(main, await get("/v1/state"), who, () => list?.refresh());
      await list.refresh();
    }
    main.dataset.ready = hash || "#/";
  } catch (error) {
    if (error.status !== 401) {
      fill(main, el("p", { class: "notice problem", role: "alert" }, error.message), el("a", { class: "button", href: "#/" }, "Back to the list"));
    }
  }
}

function signInView(said = "") {
  const token = el("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  fill(
    main,
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
    signInView("The sign-in has ended.");
  }
});
get("/v1/state")
  .then((state) => takeDrops(state.limits, () => list?.refresh()))
  .catch(() => takeDrops({ body_bytes: Infinity }, () => list?.refresh()));
session()
  .then((found) => {
    who = found;
    begin();
  })
  .catch((error) => (error.status === 401 ? signInView() : fill(main, el("p", { class: "notice problem" }, error.message))));
