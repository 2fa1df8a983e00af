// Copyright (c) monai_ext contributors
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//     http://www.apache.org/licenses/LICENSE-2.0
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.

// MONAI Label's REST interface. What goes wrong is thrown as one sentence for the person at the screen.
// A mask is { width, height, pixels, names }: `names` are those of its numbers 1, 2, ..., or null where nobody said.

import { decodePng, encodePng } from "./png.mjs";

const TAG = "final";
const PICTURES = /\.(png|jpe?g|bmp|gif|webp|tiff?)$/i;
const TOKEN = "monai_ext_token";

export class Server {
  /** `root` is where MONAI Label's endpoints begin; `askPassword(problem)` gives { name, password }, or null. */
  constructor(root, askPassword) {
    this.root = root;
    this.askPassword = askPassword;
  }

  info() {
    return this.#json("info/");
  }

  /** All pictures, `[{ id, saved }]` in the order of their names; volumes and slides are for other clients. */
  async pictures() {
    const { objects } = await this.#json("datastore/?output=all");
    const names = new Intl.Collator(undefined, { numeric: true });
    return Object.entries(objects ?? {})
      .filter(([, { image }]) => PICTURES.test(image.ext))
      .map(([id, { labels }]) => ({ id, saved: TAG in (labels ?? {}) }))
      .sort((a, b) => names.compare(a.id, b.id));
  }

  /** The picture's file, or the same picture as PNG. */
  async picture(id, asPng = false) {
    const path = asPng ? "annotate/picture" : "datastore/image";
    return (await this.#ask(`${path}?${query({ image: id })}`)).blob();
  }

  /** What is saved: { revision, mask }, both null if nothing is. */
  async label(id) {
    const info = await this.#labelInfo(id);
    const revision = revisionOf(info);
    if (revision === null) return { revision, mask: null };
    const answer = await this.#ask(`datastore/label?${query({ label: id, tag: TAG })}`);
    return { revision, mask: { ...(await this.#mask(answer, `The saved label of ${id}`)), names: namesOf(info) } };
  }

  /** Which version of the label is saved, as something that can be compared; null if there is none. */
  async revision(id) {
    return revisionOf(await this.#labelInfo(id));
  }

  /** Save a mask and say what its numbers mean; returns its revision. */
  async save(id, { width, height, pixels, names }) {
    const revision = randomName();
    const form = new FormData();
    const params = { revision, label_info: names.map((name, index) => ({ name, idx: index + 1 })) };
    form.append("params", JSON.stringify(params));
    form.append("label", new Blob([await encodePng(pixels, width, height)], { type: "image/png" }), "label.png");
    await this.#ask(`datastore/label?${query({ image: id, tag: TAG })}`, { method: "PUT", body: form });
    return revision;
  }

  /** The mask that a model gives for prompts, `{ width, height, pixels }`. */
  async infer(model, id, prompts, signal) {
    const form = new FormData();
    form.append("params", JSON.stringify({ ...prompts, result_extension: ".png" }));
    const path = `infer/${encodeURIComponent(model)}?${query({ image: id, output: "image" })}`;
    return this.#mask(await this.#ask(path, { method: "POST", body: form, signal }), `The answer of ${model}`);
  }

  /** The picture that a strategy of active learning wants labelled next; null if all are. */
  async next(strategy, params) {
    return (await this.#json(`activelearning/${encodeURIComponent(strategy)}`, json("POST", params))).id ?? null;
  }

  train(model) {
    return this.#json(`train/${encodeURIComponent(model)}`, json("POST", {}));
  }

  stopTraining(model) {
    return this.#json(`train/${encodeURIComponent(model)}`, { method: "DELETE" });
  }

  /** What the last training of a model does or did; null if there was none. */
  async training(model) {
    const answer = await this.#send(`train/${encodeURIComponent(model)}`, {});
    return answer.status === 404 ? null : (await this.#checked(answer)).json();
  }

  #labelInfo(id) {
    return this.#json(`datastore/label/info?${query({ label: id, tag: TAG })}`);
  }

  async #json(path, options) {
    return (await this.#ask(path, options)).json();
  }

  async #mask(answer, what) {
    try {
      return await decodePng(new Uint8Array(await answer.arrayBuffer()));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(`${what} cannot be shown: ${error.message}.`);
    }
  }

  async #ask(path, options) {
    return this.#checked(await this.#send(path, options));
  }

  async #send(path, options = {}) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    let answer;
    try {
      answer = await fetch(new URL(path, this.root), { cache: "no-store", ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is it running? Your work is kept in this browser.");
    }
    if (answer.status !== 401) return answer;
    await this.#login(token);
    return this.#send(path, options);
  }

  // Requests that are refused together ask for one password.
  #login(refused) {
    if (sessionStorage.getItem(TOKEN) !== refused) return Promise.resolve();
    this.asking ??= this.#askUntilRight().finally(() => (this.asking = null));
    return this.asking;
  }

  async #askUntilRight() {
    for (let problem = ""; ; ) {
      const given = await this.askPassword(problem);
      if (!given) throw new Error("The server wants a name and a password; reload the page to give them.");
      const body = new URLSearchParams({ username: given.name, password: given.password });
      const answer = await fetch(new URL("auth/token", this.root), { method: "POST", body });
      if (answer.ok) return sessionStorage.setItem(TOKEN, (await answer.json()).access_token);
      problem = sentence(await answer.text());
    }
  }

  async #checked(answer) {
    if (answer.ok) return answer;
    const text = answer.status === 500 ? "" : sentence(await answer.text());
    throw new Error(text || `The server failed (${answer.status}); its log says why.`);
  }
}

function revisionOf(info) {
  return info?.revision ?? info?.ts ?? null;
}

/** The names of the numbers 1, 2, ... as a client said them; null where none did. */
function namesOf({ label_info: given, params }) {
  const entries = given ?? params?.label_info;
  if (!Array.isArray(entries)) return null;
  const names = [];
  for (const { name, idx } of entries) if (Number.isInteger(idx) && idx > 0) names[idx - 1] = name;
  return names;
}

/** A name that nobody else makes; crypto.randomUUID exists over HTTPS only. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// FastAPI says {"detail": "..."}, or a list of what is wrong with the request.
function sentence(text) {
  let detail = text;
  try {
    detail = JSON.parse(text).detail ?? text;
  } catch {
    // no JSON: the text is all there is
  }
  if (Array.isArray(detail)) detail = detail.map(({ loc, msg }) => `${(loc ?? []).join(".")}: ${msg}`).join("; ");
  return typeof detail === "string" ? detail.trim().slice(0, 1000) : JSON.stringify(detail);
}

function query(values) {
  return new URLSearchParams(values).toString();
}

function json(method, body) {
  return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}
