// Files that are dropped or chosen, sent in jobs that belong together.

import { post } from "./api.js";
import { announce, count, el, fill } from "./dom.js";

const PICTURES = /\.(png|jpe?g|jfif|tiff?|bmp|gif|webp|jp2|p[gnp]m)$/i;
const ALONE = /\.(zip|nii|nii\.gz)$/i;
const PICTURES_A_JOB = 16;

/** The bar that takes files. `onsent` is called when a job is with the service. */
export function uploadBar(limits, onsent) {
  const files = el("input", { type: "file", multiple: true, id: "files", class: "hidden-text" });
  const folder = el("input", { type: "file", id: "folder", class: "hidden-text" });
  folder.webkitdirectory = true;
  const said = el("div", { class: "sending", id: "sending" });
  const bar = el(
    "section",
    { class: "drop", "aria-label": "Send images" },
    el("p", { class: "drop-words" }, "Drop images, studies or folders here"),
    el(
      "div",
      { class: "buttons" },
      el("button", { type: "button", class: "main", onclick: () => files.click() }, "Choose files"),
      el("button", { type: "button", onclick: () => folder.click() }, "Choose a folder"),
    ),
    el("p", { class: "soft" }, "PNG, JPEG, TIFF, DICOM, NIfTI, or a zip of a study"),
    el("label", { for: "files", class: "hidden-text" }, "Files to send"),
    files,
    el("label", { for: "folder", class: "hidden-text" }, "Folder to send"),
    folder,
    said,
  );
  const take = (input) => {
    const chosen = [...input.files].map((file) => ({
      file,
      name: file.webkitRelativePath || file.name,
    }));
    input.value = "";
    sendAll(chosen, limits, said, onsent);
  };
  files.addEventListener("change", () => take(files));
  folder.addEventListener("change", () => take(folder));
  return bar;
}

/** Let the whole page take what is dropped, while `bar` is in it. */
export function takeDrops(limits, onsent) {
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  };
  const left = (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  };
  const dropped = async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const said = document.getElementById("sending");
    if (!said) return;
    sendAll(await found(event.dataTransfer), limits, said, onsent);
  };
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", left);
  document.addEventListener("drop", dropped);
}

/** The files of a drop, those in folders included. */
async function found(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      files.push({ file, name: entry.fullPath.replace(/^\//, "") });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}

/** Pictures some at a time; volumes and zips alone; all else by folder, as the files of a study. */
export function jobsOf(files) {
  const jobs = [];
  const studies = new Map();
  let some = [];
  for (const one of files) {
    if (/(^|\/)(\.|__MACOSX)/.test(one.name)) continue;
    if (PICTURES.test(one.name)) {
      if (some.length === 0 || some.length === PICTURES_A_JOB) jobs.push((some = []));
      some.push(one);
    } else if (ALONE.test(one.name)) {
      jobs.push([one]);
    } else {
      const folder = one.name.includes("/") ? one.name.split("/")[0] : "";
      if (!studies.has(folder)) {
        studies.set(folder, []);
        jobs.push(studies.get(folder));
      }
      studies.get(folder).push(one);
    }
  }
  return jobs;
}

async function sendAll(files, limits, said, onsent) {
  const jobs = jobsOf(files);
  if (!jobs.length) return;
  const total = jobs.reduce((sum, job) => sum + job.length, 0);
  const bar = el("progress", { max: total, value: 0, "aria-label": "Files sent" });
  const words = el("span", {}, `Sending ${count(total, "file")}…`);
  const line = el("div", { class: "line" }, words, bar);
  said.append(line);
  let sent = 0;
  const problems = [];
  for (const job of jobs) {
    const size = job.reduce((sum, one) => sum + one.file.size, 0);
    if (size > limits.body_bytes) {
      problems.push(`${job[0].name}: too large to be sent at once`);
    } else {
      try {
        await patiently(job);
        onsent();
      } catch (error) {
        problems.push(`${job[0].name}: ${error.message}`);
      }
    }
    sent += job.length;
    bar.value = sent;
    words.textContent = `Sent ${sent} of ${count(total, "file")}`;
  }
  announce(problems.length ? problems.join(". ") : `${count(total, "file")} sent`);
  if (problems.length) {
    fill(
      line,
      el("p", { class: "problem", role: "alert" }, ...problems.flatMap((p) => [p, el("br")])),
      el("button", { type: "button", onclick: () => line.remove() }, "Close"),
    );
  } else {
    setTimeout(() => line.remove(), 2500);
  }
}

/** A full queue is waited for. */
async function patiently(job) {
  const key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
  for (let attempt = 0; ; attempt++) {
    const form = new FormData();
    for (const { file, name } of job) form.append("files", file, name);
    try {
      return await post("/v1/score", form, { "idempotency-key": key });
    } catch (error) {
      if (error.status !== 429 || attempt >= 100) throw error;
      await new Promise((done) => setTimeout(done, 1000 * (error.retry || 2)));
    }
  }
}
