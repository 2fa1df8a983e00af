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

// The page's logic without a browser: node --test tests/label/page

import assert from "node:assert/strict";
import { test } from "node:test";
import { Annotation } from "../../../monai_ext/label/page/annotation.mjs";
import { History } from "../../../monai_ext/label/page/history.mjs";
import { drawLine } from "../../../monai_ext/label/page/mask.mjs";
import { Viewport } from "../../../monai_ext/label/page/viewport.mjs";

/** Random numbers that are the same each time. */
function generator(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

const below = (random, limit) => Math.floor(random() * limit);

test("whatever is done can be taken back and done again, step by step", () => {
  for (let seed = 0; seed < 30; seed++) {
    const random = generator(seed);
    const [width, height] = [1 + below(random, 20), 1 + below(random, 20)];
    const work = new Annotation(width, height);
    const shape = () => Uint8Array.from({ length: width * height }, () => below(random, 2));
    const point = () => [below(random, width + 6) - 3, below(random, height + 6) - 3];
    const masks = new Map([[work.history.position, work.mask.slice()]]);
    for (let step = 0; step < 40; step++) {
      const label = 1 + below(random, 3);
      const keepOthers = random() < 0.5;
      const actions = [
        () => (work.click(label, point(), random() < 0.5), work.answer(shape(), keepOthers)),
        () => (work.box(label, [0, 0, width, height]), work.answer(shape(), keepOthers)),
        () => (work.startStroke(point(), 1 + below(random, 6), label, { keepOthers }), work.strokeTo(point()), work.endStroke()),
        () => (work.startStroke(point(), 3, 0, { only: label }), work.endStroke()),
        () => work.relabel(shape(), [1], keepOthers),
        () => work.finish(),
        () => (work.click(label, point(), true), work.giveUp()),
        () => work.undo(),
        () => work.redo(),
      ];
      actions[below(random, actions.length)]();
      const known = masks.get(work.history.position);
      if (known) assert.deepEqual(work.mask, known);
      else masks.set(work.history.position, work.mask.slice());
    }
    const last = work.mask.slice();
    let steps = 0;
    while (work.undo()) {
      assert.deepEqual(work.mask, masks.get(work.history.position));
      steps++;
    }
    assert.ok(work.mask.every((value) => value === 0));
    assert.equal(work.dirty, false);
    while (steps--) work.redo();
    assert.deepEqual(work.mask, last);
  }
});

test("an answer replaces the one before it and nothing else", () => {
  const work = new Annotation(4, 1, Uint8Array.from([2, 0, 0, 2]));
  work.click(1, [0, 0], true);
  work.answer(Uint8Array.from([1, 1, 0, 0]));
  assert.deepEqual([...work.mask], [1, 1, 0, 2]);
  work.click(1, [1, 0], false);
  work.answer(Uint8Array.from([0, 0, 1, 1]), true); // others stay
  assert.deepEqual([...work.mask], [2, 0, 1, 2]);
  work.finish();
  work.click(1, [0, 0], true); // another object
  work.answer(Uint8Array.from([1, 0, 0, 0]));
  assert.deepEqual([...work.mask], [1, 0, 1, 2]);
  assert.deepEqual(work.object.points, [[0, 0, true]]);
});

test("clicks that overtake the answer are one step; without an answer nothing is left of them", () => {
  const work = new Annotation(3, 1);
  work.click(1, [0, 0], true);
  work.click(1, [1, 0], true);
  assert.equal(work.history.past.length, 1);
  assert.equal(work.object.points.length, 2);
  work.giveUp();
  assert.deepEqual([work.dirty, work.object, work.redo()], [false, null, false]);
});

test("saved is what was saved, by whatever way one comes back to it", () => {
  const work = new Annotation(3, 3);
  work.startStroke([1, 1], 1, 1);
  work.endStroke();
  work.saved = work.history.position;
  work.startStroke([2, 2], 1, 1);
  work.endStroke();
  assert.equal(work.dirty, true);
  work.undo();
  assert.equal(work.dirty, false);
  work.undo();
  assert.equal(work.dirty, true);
});

test("memory is bounded, and the newest steps are kept", () => {
  const history = new History(100);
  const step = () => ({ patch: { before: new Uint8Array(15), after: new Uint8Array(15) } });
  for (let count = 0; count < 10; count++) history.push(step());
  assert.equal(history.past.length, 3);
  history.push({ patch: { before: new Uint8Array(500), after: new Uint8Array(500) } });
  assert.equal(history.past.length, 1);
});

test("a line is as wide as its size and has no gaps", () => {
  const random = generator(1);
  for (let trial = 0; trial < 200; trial++) {
    const size = 1 + below(random, 7);
    const [from, to] = [0, 1].map(() => [5 + below(random, 30), 5 + below(random, 30)]);
    const mask = new Uint8Array(40 * 40);
    drawLine(mask, 40, 40, from, to, size, 1, () => true);
    for (let y = 0; y < 40; y++) {
      for (let x = 0; x < 40; x++) {
        const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
        const along = Math.min(1, Math.max(0, ((x - from[0]) * dx + (y - from[1]) * dy) / (dx * dx + dy * dy || 1)));
        const distance = Math.hypot(x - from[0] - along * dx, y - from[1] - along * dy);
        assert.equal(mask[40 * y + x], Math.abs(distance - size / 2) < 1e-9 ? mask[40 * y + x] : Number(distance < size / 2));
      }
    }
    const steps = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [0, 1].map((axis) => Math.round(from[axis] + ((to[axis] - from[axis]) * step) / steps));
      assert.equal(mask[40 * y + x], 1);
    }
  }
});

test("points go to the window and back, zooming keeps the point under the mouse, the picture stays in sight", () => {
  const random = generator(2);
  const view = new Viewport();
  view.resize(700, 500);
  view.fit(3504, 2336);
  assert.deepEqual(view.visible(), [0, 0, 3504, 2336]);
  for (let trial = 0; trial < 300; trial++) {
    const at = [random() * 700, random() * 500];
    const before = view.toPicture(at);
    const { scale } = view;
    if (random() < 0.7) {
      view.zoom(random() * 4 - 2, at);
      const inside = before.every((value, axis) => value > 0 && value < [3504, 2336][axis]);
      if (inside && view.scale >= scale) view.toPicture(at).forEach((value, axis) => assert.ok(Math.abs(value - before[axis]) < 1e-6));
    } else {
      view.pan(random() * 2000 - 1000, random() * 2000 - 1000);
    }
    const again = view.toWindow(view.toPicture(at));
    again.forEach((value, axis) => assert.ok(Math.abs(value - at[axis]) < 1e-6));
    const [x0, y0, x1, y1] = view.visible();
    assert.ok(x0 < x1 && y0 < y1 && x0 >= 0 && y0 >= 0 && x1 <= 3504 && y1 <= 2336);
  }
});
