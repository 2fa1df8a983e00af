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

// What a person does, from opening a picture to saving its label: it joins the work on one picture with the server and
// with the drafts. `ui` shows things: status(text), error(text), changed(rect), opened(), listed(), conflict().

import { Annotation } from "./annotation.mjs";
import { sizes } from "./mask.mjs";
import { randomName } from "./server.mjs";

const KEEP_AFTER = 300; // milliseconds without a change, after which work is kept as a draft

export class App {
  #asking = null;
  #opening = null;
  #queue = [];
  #saving = false;
  #keeping = Promise.resolve();

  constructor(server, drafts, ui) {
    this.server = server;
    this.drafts = drafts;
    this.ui = ui;
    this.pictures = [];
    this.unsaved = new Set();
    this.tasks = {}; // what segments by itself: for each model the names of its numbers 1, 2, ...
    this.clickers = {}; // what answers clicks: the same; none where any name will do
    this.labels = []; // every name that was ever needed; a label is its place here, from 1 on, and never changes
    this.current = null; // { id, picture, annotation, revision, said, timer }; said: names its label says something of
    this.task = "";
    this.clicker = "";
    this.label = 1;
    this.keepOthers = false;
  }

  async start() {
    const { name, models, strategies, trainers } = await this.server.info();
    this.name = name;
    for (const [model, { type, dimension, labels }] of Object.entries(models ?? {})) {
      if (dimension !== 2) continue;
      if (type === "segmentation") this.tasks[model] = names(labels);
      else this.clickers[model] = names(labels);
    }
    this.strategies = Object.keys(strategies ?? {});
    this.trainers = Object.keys(trainers ?? {});
    await this.list();
  }

  /** Work on what this model knows; "" is none. */
  chooseTask(task) {
    this.task = task;
    for (const name of this.taskLabels) this.number(name);
    this.label = this.taskLabels.length ? this.number(this.taskLabels[0]) : this.label;
    if (this.current) this.finish();
  }

  /** The names that the task has. */
  get taskLabels() {
    return this.tasks[this.task] ?? [];
  }

  /** What may be clicked with: what knows all labels of the task, or any. */
  get taskClickers() {
    const fits = (known) => !known.length || (this.task && this.taskLabels.every((name) => known.includes(name)));
    return Object.keys(this.clickers).filter((model) => fits(this.clickers[model]));
  }

  /** The number of a label, a new one if need be. */
  number(name) {
    const known = this.labels.indexOf(name) + 1;
    if (known) return known;
    if (this.labels.length === 255) throw new Error(`There can be 255 labels, and ${name} would be one more.`);
    return this.labels.push(name);
  }

  /** Ask again which pictures there are and which are saved. */
  async list() {
    this.pictures = await this.server.pictures();
    this.unsaved = (await this.drafts?.images()) ?? new Set();
    this.ui.listed();
  }

  /** Whether the picture in sight has work that is not saved. */
  get dirty() {
    return this.current?.annotation.dirty ?? false;
  }

  async open(id) {
    if (id === this.current?.id) return;
    this.#opening = id;
    this.giveUp();
    await this.keepNow();
    this.ui.status(`Opening ${id} ...`);
    try {
      const [picture, saved, draft] = await Promise.all([
        this.#picture(id),
        this.server.label(id),
        this.drafts?.get(id),
      ]);
      if (this.#opening !== id) return; // another was chosen meanwhile
      const mask = saved.mask && this.#renumbered(saved.mask, picture, `The saved label of ${id}`);
      const kept = draft && this.#renumbered(draft, picture, `Your unsaved work on ${id}`);
      const said = new Set(saved.mask?.names ?? []);
      const current = { id, picture, revision: saved.revision, said, timer: null };
      const changed = (rect) => this.#changed(current, rect);
      current.annotation = new Annotation(picture.width, picture.height, mask ?? undefined, changed);
      this.current?.picture.close();
      this.current = current;
      this.ui.opened();
      if (draft) this.#bringBack(draft, kept);
      else this.ui.status(mask ? `${id}: its saved label is shown.` : `${id} has no label yet.`);
    } catch (error) {
      if (this.#opening === id) this.ui.status("");
      this.ui.error(error);
    }
  }

  /** Open the picture that active learning gives. */
  async next(strategy) {
    const client = (localStorage.monai_ext_client ??= randomName());
    await this.#tried(async () => {
      const id = await this.server.next(strategy, { client_id: client, ...(this.task && { model: this.task }) });
      if (id === null) this.ui.status("All pictures have a label.");
      else if (id === this.current?.id) this.ui.status(`${id} is the next picture to label.`);
      else await this.open(id);
    });
  }

  click(point, positive) {
    if (this.#nameless()) return;
    this.#afterAnswer(() => {
      const { annotation } = this.current;
      if (positive || annotation.object?.label === this.label) annotation.click(this.label, point, positive);
      else this.ui.status("Click on the object first, then off it.");
    }, true);
  }

  box(box) {
    if (this.#nameless()) return;
    this.#afterAnswer(() => this.current.annotation.box(this.label, box));
  }

  /** The object is done. */
  finish() {
    this.#afterAnswer(() => this.current.annotation.finish());
  }

  chooseLabel(label) {
    this.label = label;
    this.finish();
  }

  /** Whether drawing may begin; says why not. */
  mayDraw() {
    if (this.#nameless()) return false;
    if (!this.#asking) return true;
    this.ui.status("Wait for the model, or press Escape to give its answer up.");
    return false;
  }

  /** Let the task's model segment the whole picture, without clicks. */
  segment() {
    const { task, taskLabels } = this;
    if (!task) return this.ui.status("Choose a task first: its model segments the whole picture.");
    return this.#afterAnswer(async () => {
      const { annotation, picture } = this.current;
      const mask = await this.#infer(task, {});
      if (!mask) return;
      const shape = this.#renumbered({ ...mask, names: taskLabels }, picture, `The answer of ${task}`);
      annotation.relabel(shape, taskLabels.map((name) => this.number(name)), this.keepOthers);
    });
  }

  undo() {
    const awaited = this.#quit();
    if (!awaited || this.current.annotation.waiting) this.current?.annotation.undo();
  }

  redo() {
    if (!this.#asking) this.current?.annotation.redo();
  }

  /** Give up what is awaited. Returns whether there was anything. */
  giveUp() {
    const awaited = this.#quit();
    this.current?.annotation.giveUp();
    if (awaited) this.ui.status("Given up.");
    return awaited;
  }

  async save() {
    if (!this.current || this.#saving) return;
    if (this.#asking) {
      this.#queue.push(() => this.save());
      return;
    }
    const { current } = this;
    const { id, annotation } = current;
    this.#saving = true;
    await this.#tried(async () => {
      this.ui.status(`Saving ${id} ...`);
      const revision = await this.server.revision(id);
      if (revision !== current.revision) {
        this.ui.status("");
        const choice = await this.ui.conflict();
        if (choice === "theirs") await this.#showTheirs(current);
        if (choice !== "mine") return;
      }
      const position = annotation.history.position;
      const mask = this.#forSaving(current);
      current.revision = await this.server.save(id, mask);
      annotation.saved = position;
      for (const name of mask.names) current.said.add(name);
      await this.keepNow(current);
      this.ui.status(`${id} is saved.`);
      await this.list();
    });
    this.#saving = false;
    this.ui.changed(null);
  }

  /** Keep the work in sight as a draft now. */
  async keepNow(current = this.current) {
    if (!current) return;
    clearTimeout(current.timer);
    this.#keeping = this.#keeping.then(() => this.#tried(() => this.#keep(current)));
    await this.#keeping;
  }

  async #keep(current) {
    if (!this.drafts) return;
    const { id, annotation, revision } = current;
    const { dirty } = annotation;
    if (dirty) await this.drafts.put(id, { ...this.#forSaving(current), revision });
    else await this.drafts.delete(id);
    if (dirty === this.unsaved.has(id)) return;
    if (dirty) this.unsaved.add(id);
    else this.unsaved.delete(id);
    this.ui.listed();
  }

  #changed(current, rect) {
    clearTimeout(current.timer);
    current.timer = setTimeout(() => this.keepNow(current), KEEP_AFTER);
    if (current === this.current) this.ui.changed(rect);
  }

  // Only clicks of one object may overtake each other; all else waits for the answer, in order.
  #afterAnswer(action, overtakes = false) {
    if (!this.current) return;
    if (this.#asking && (this.#queue.length || !overtakes || !this.#sameObject())) {
      this.#queue.push(action);
      return;
    }
    this.#run(action);
  }

  #sameObject() {
    const { waiting, object } = this.current.annotation;
    return waiting && object.label === this.label;
  }

  #nameless() {
    if (this.label <= this.labels.length) return false;
    this.ui.status("Name a label first.");
    return true;
  }

  async #run(action) {
    await this.#tried(action);
    if (this.current.annotation.waiting) await this.#ask();
    else if (!this.#asking && this.#queue.length) await this.#run(this.#queue.shift());
  }

  async #ask() {
    if (this.#asking) {
      this.#asking.again = true;
      return;
    }
    const { annotation } = this.current;
    const mask = await this.#infer(this.clicker, () => prompts(annotation.object, this.labels));
    if (mask === undefined) return;
    if (mask) annotation.answer(mask.pixels, this.keepOthers);
    else annotation.giveUp();
    if (this.#queue.length) await this.#run(this.#queue.shift());
  }

  // The mask that a model gives; null after an error, undefined when it was given up.
  async #infer(model, request) {
    const { id, picture } = this.current;
    const asking = { abort: new AbortController(), again: true };
    this.#asking = asking;
    this.ui.status("The model is at work ...");
    try {
      let mask = null;
      while (asking.again) {
        asking.again = false;
        const values = typeof request === "function" ? request() : request;
        mask = await this.server.infer(model, id, values, asking.abort.signal);
      }
      if (this.#asking !== asking) return undefined;
      checkSize(mask, picture, `The answer of ${model}`);
      this.ui.status(mask.pixels.some(Boolean) ? "" : `${model} finds nothing.`);
      return mask;
    } catch (error) {
      if (this.#asking !== asking) return undefined;
      this.#queue = [];
      this.ui.status("");
      this.ui.error(error);
      return null;
    } finally {
      if (this.#asking === asking) this.#asking = null;
    }
  }

  #quit() {
    this.#queue = [];
    this.#asking?.abort.abort();
    const awaited = this.#asking !== null;
    this.#asking = null;
    return awaited;
  }

  async #picture(id) {
    const blob = await this.server.picture(id);
    try {
      return await createImageBitmap(blob);
    } catch {
      // a TIFF, say: the server turns it into what browsers show
      return createImageBitmap(await this.server.picture(id, true));
    }
  }

  async #showTheirs(current) {
    const { annotation, id, picture } = current;
    const { revision, mask } = await this.server.label(id);
    const theirs = mask && this.#renumbered(mask, picture, `The saved label of ${id}`);
    annotation.replace(theirs ?? new Uint8Array(annotation.mask.length));
    annotation.saved = annotation.history.position;
    current.revision = revision;
    this.ui.status("This is the label of somebody else. Undo brings yours back.");
  }

  #bringBack(draft, mask) {
    const { annotation, id, revision } = this.current;
    this.current.revision = draft.revision; // saving asks if it is not the newest
    annotation.replace(mask);
    const time = new Date(draft.time).toLocaleString();
    const also = draft.revision === revision ? "" : " Somebody has saved the picture since.";
    this.ui.status(`${id}: your unsaved work of ${time} is back; undo shows the saved label.${also}`);
  }

  /** A mask from outside with our numbers; one that does not belong here is refused, since saving would replace it. */
  #renumbered(mask, picture, what) {
    checkSize(mask, picture, what);
    const used = new Set(mask.pixels);
    used.delete(0);
    const table = new Uint8Array(2 ** 16);
    for (const value of used) {
      // Without names, numbers are those of the task; where it has one label, every number is it.
      const name = mask.names ? mask.names[value - 1] : this.taskLabels[this.taskLabels.length === 1 ? 0 : value - 1];
      if (!name) throw new Error(`${what} holds the number ${value}, and nothing says which label that is.`);
      table[value] = this.number(name);
    }
    return Uint8Array.from(mask.pixels, (value) => table[value]);
  }

  /** The mask as it is saved: the task's labels first, then what else it says something of. */
  #forSaving({ annotation, said }) {
    const { width, height, mask } = annotation;
    const used = sizes(mask, this.labels.length);
    const there = this.labels.filter((name, index) => used[index]);
    const all = [...new Set([...this.taskLabels, ...said, ...there])];
    const table = Uint8Array.from([0, ...this.labels.map((name) => all.indexOf(name) + 1)]);
    return { width, height, pixels: mask.map((value) => table[value]), names: all };
  }

  async #tried(action) {
    try {
      await action();
    } catch (error) {
      this.ui.status("");
      this.ui.error(error);
    }
  }
}

function checkSize({ width, height }, picture, what) {
  if (width === picture.width && height === picture.height) return;
  const size = `${width} x ${height} pixels, the picture ${picture.width} x ${picture.height}`;
  throw new Error(`${what} has ${size}.`);
}

function prompts({ label, points, box }, labels) {
  const which = (wanted) => points.filter(([, , positive]) => positive === wanted).map(([x, y]) => [x, y]);
  const request = { label: labels[label - 1], foreground: which(true), background: which(false) };
  // The server's box is that of its corner pixels.
  return box ? { ...request, roi: [box[0], box[1], box[2] - 1, box[3] - 1] } : request;
}

/** MONAI Label gives labels as a list or as names with numbers. */
function names(labels) {
  if (Array.isArray(labels)) return labels;
  return Object.entries(labels ?? {}).sort(([, a], [, b]) => a - b).map(([name]) => name);
}
