// The service, as this page asks it.

let csrf = "";

/** A refusal of the service. */
export class Refusal extends Error {
  constructor(status, text, retry) {
    super(text);
    this.status = status;
    this.retry = retry;
  }
}

async function ask(path, options = {}, read = (answer) => answer.json()) {
  const headers = { ...options.headers };
  if (csrf) headers["x-scrd-csrf"] = csrf;
  if (options.json !== undefined) {
    headers["content-type"] = "application/json";
    options.body = JSON.stringify(options.json);
  }
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, credentials: "same-origin" });
    if (answer.ok) return await read(answer);
  } catch {
    // whoever asked was left meanwhile: what it would do next is never done
    if (options.signal?.aborted) return new Promise(() => {});
    throw new Refusal(0, "The service does not answer.");
  }
  let text = answer.statusText;
  try {
    const { detail } = await answer.json();
    text = typeof detail === "string" ? detail : detail.map((one) => one.msg).join("; ");
  } catch {
    // its status says enough
  }
  if (answer.status === 401) window.dispatchEvent(new Event("signed-out"));
  throw new Refusal(answer.status, text, Number(answer.headers.get("retry-after")) || 0);
}

export function get(path, signal) {
  return ask(path, { signal });
}

export function send(method, path, json, signal) {
  return ask(path, { method, json, signal }, (answer) => (answer.status === 204 ? null : answer.json()));
}

export function bytes(path, signal) {
  return ask(path, { signal }, (answer) => answer.arrayBuffer());
}

export function post(path, body, headers) {
  return ask(path, { method: "POST", body, headers });
}

export async function session() {
  const found = await get("/v1/session");
  csrf = found.csrf;
  return found;
}

export async function signIn(token) {
  const found = await send("POST", "/v1/session", { token });
  csrf = found.csrf;
  return found;
}

export async function signOut() {
  await send("DELETE", "/v1/session");
  csrf = "";
}

const thumbs = new Map();
const MOST_THUMBS = 400;

/** The address of a thumbnail, kept in this page only: nothing of a patient in the browser's cache. */
export async function thumbnail(result) {
  if (!thumbs.has(result)) {
    thumbs.set(
      result,
      ask(`/v1/results/${result}/thumbnail.jpg`, {}, (answer) => answer.blob())
        .then((blob) => URL.createObjectURL(blob))
        .catch(() => null),
    );
    if (thumbs.size > MOST_THUMBS) {
      const [oldest, address] = thumbs.entries().next().value;
      thumbs.delete(oldest);
      address.then((url) => url && URL.revokeObjectURL(url));
    }
  }
  return thumbs.get(result);
}
