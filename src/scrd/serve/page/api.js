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

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (csrf) headers["x-scrd-csrf"] = csrf;
  if (options.json !== undefined) {
    headers["content-type"] = "application/json";
    options.body = JSON.stringify(options.json);
  }
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service does not answer.");
  }
  if (!answer.ok) {
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
  return answer;
}

export async function get(path, options) {
  return (await ask(path, options)).json();
}

export async function send(method, path, json) {
  const answer = await ask(path, { method, json });
  return answer.status === 204 ? null : answer.json();
}

export async function bytes(path, options) {
  return (await ask(path, options)).arrayBuffer();
}

export async function post(path, body, headers) {
  return (await ask(path, { method: "POST", body, headers })).json();
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
      ask(`/v1/results/${result}/thumbnail.jpg`)
        .then((answer) => answer.blob())
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
