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

// The work on one picture: its mask, the object at work, and everything that can be taken back. It knows no window and no
// server, so that it can be tested alone.
//
// An object is what clicks and a box describe: { label, points: [[x, y, positive], ...], box, under }. Each answer of the
// server replaces the one before it; `under` is the patch that leads back to the mask without the object.

import { History } from "./history.mjs";
import { around, difference, drawLine, fill, put } from "./mask.mjs";

export class Annotation {
  #waiting = null;
  #stroke = null;

  /** `onChange(rect)` is called after each change; `rect` is where the mask changed, or null. */
  constructor(width, height, mask = new Uint8Array(width * height), onChange = () => {}) {
    this.width = width;
    this.height = height;
    this.mask = mask;
    this.onChange = onChange;
    this.object = null;
    this.history = new History();
    this.saved = this.history.position;
  }

  get dirty() {
    return this.history.position !== this.saved;
  }

  /** Whether clicks are without an answer. */
  get waiting() {
    return this.#waiting !== null;
  }

  /** Add a click to the object at work, or begin one. Clicks that come before the answer are taken back with the first. */
  click(label, point, positive) {
    const begun = this.object?.label === label ? this.object : null;
    this.#prompt({ label, points: [...(begun?.points ?? []), [...point, positive]], box: begun?.box ?? null }, begun);
  }

  /** Begin an object with a box `[x0, y0, x1, y1]`. */
  box(label, box) {
    this.#prompt({ label, points: [], box }, null);
  }

  /** The server's answer to all clicks of the object: where `shape` is not 0. `keepOthers` leaves other labels as they are. */
  answer(shape, keepOthers = false) {
    const step = this.#waiting;
    this.#waiting = null;
    const { label } = this.object;
    const before = this.mask.slice();
    if (this.object.under) put(this.mask, this.width, this.object.under, "before");
    const without = this.mask.slice();
    fill(this.mask, shape, label, painter(label, keepOthers));
    const under = difference(without, this.mask, this.width, this.#everywhere());
    step.patch = difference(before, this.mask, this.width, this.#everywhere());
    step.objectAfter = this.object = { ...this.object, under };
    this.onChange(step.patch?.rect ?? null);
  }

  /** Take back the clicks that have no answer, for good. */
  giveUp() {
    if (!this.waiting) return false;
    this.#travel(this.history.undo(), "before");
    this.history.future.pop();
    return true;
  }

  /** The object at work is done; the next click begins another. */
  finish() {
    this.giveUp();
    this.object = null;
    this.onChange(null);
  }

  /** Begin to draw (label 0 erases `only` that label), from the pixel `point` on. */
  startStroke(point, size, label, { keepOthers = false, only = 0 } = {}) {
    this.finish();
    const paints = label ? painter(label, keepOthers) : (value) => value === only;
    this.#stroke = { before: this.mask.slice(), rect: null, last: point, size, label, paints };
    this.strokeTo(point);
  }

  strokeTo(point) {
    const stroke = this.#stroke;
    if (!stroke) return;
    const { width, height } = this;
    const rect = drawLine(this.mask, width, height, stroke.last, point, stroke.size, stroke.label, stroke.paints);
    stroke.last = point;
    if (rect[0] >= rect[2] || rect[1] >= rect[3]) return; // beside the picture
    stroke.rect = around(stroke.rect, rect);
    this.onChange(rect);
  }

  endStroke() {
    const stroke = this.#stroke;
    this.#stroke = null;
    if (!stroke?.rect) return;
    this.#push(difference(stroke.before, this.mask, this.width, stroke.rect));
  }

  /** Another mask in place of the whole one, as a step that can be taken back. */
  replace(mask) {
    this.finish();
    const patch = difference(this.mask, mask, this.width, this.#everywhere());
    if (patch) put(this.mask, this.width, patch, "after");
    this.#push(patch);
  }

  /** Put the labels of `shape` in place of these labels everywhere, as a step that can be taken back. */
  relabel(shape, labels, keepOthers = false) {
    const gone = new Uint8Array(256);
    for (const label of labels) gone[label] = 1;
    const mask = this.mask.map((value) => (gone[value] ? 0 : value));
    for (let at = 0; at < mask.length; at++) {
      if (shape[at] && !(keepOthers && mask[at])) mask[at] = shape[at];
    }
    this.replace(mask);
  }

  undo() {
    this.endStroke();
    return this.giveUp() || this.#travel(this.history.undo(), "before");
  }

  redo() {
    if (this.waiting || this.#stroke) return false;
    return this.#travel(this.history.redo(), "after");
  }

  #prompt(prompts, begun) {
    const object = { ...prompts, under: begun?.under ?? null };
    if (this.waiting && begun) {
      this.#waiting.objectAfter = this.object = object;
    } else {
      this.giveUp();
      this.#waiting = { patch: null, objectBefore: this.object, objectAfter: object };
      this.object = object;
      this.history.push(this.#waiting);
    }
    this.onChange(null);
  }

  #push(patch) {
    if (patch) this.history.push({ patch, objectBefore: null, objectAfter: null });
    this.onChange(patch?.rect ?? null);
  }

  #travel(step, which) {
    this.#waiting = null;
    if (!step) return false;
    if (step.patch) put(this.mask, this.width, step.patch, which);
    this.object = which === "before" ? step.objectBefore : step.objectAfter;
    this.onChange(step.patch?.rect ?? null);
    return true;
  }

  #everywhere() {
    return [0, 0, this.width, this.height];
  }
}

/** Whether a pixel may get the label: `keepOthers` leaves other labels alone. */
function painter(label, keepOthers) {
  return keepOthers ? (value) => value === 0 || value === label : () => true;
}
