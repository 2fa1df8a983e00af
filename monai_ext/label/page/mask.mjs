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

// Masks as arrays: one byte for each pixel, row by row, 0 for nothing and 1, 2, ... for the labels.
// A rectangle is [x0, y0, x1, y1] with the ends left out. A patch is what changed in one: { rect, before, after }.

/** The smallest rectangle around both; either may be null. */
export function around(a, b) {
  if (!a || !b) return a ?? b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

/** What differs between two masks, looked for in `rect`; null if nothing does. */
export function difference(before, after, width, rect) {
  let [left, top, right, bottom] = [rect[2], rect[3], rect[0], rect[1]];
  for (let y = rect[1]; y < rect[3]; y++) {
    for (let x = rect[0], at = y * width + x; x < rect[2]; x++, at++) {
      if (before[at] === after[at]) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  if (left >= right) return null;
  const changed = [left, top, right, bottom];
  return { rect: changed, before: cut(before, width, changed), after: cut(after, width, changed) };
}

/** Put `patch.before` or `patch.after` back into the mask. */
export function put(mask, width, patch, which) {
  const [x0, y0, x1, y1] = patch.rect;
  for (let y = y0; y < y1; y++) {
    mask.set(patch[which].subarray((y - y0) * (x1 - x0), (y - y0 + 1) * (x1 - x0)), y * width + x0);
  }
}

/**
 * Draw a straight line of `size` pixels with round ends from pixel to pixel; a size of 1 gives single pixels.
 * `paints(value)` says whether a pixel that holds `value` is painted over. Returns the rectangle that may have changed.
 */
export function drawLine(mask, width, height, [x0, y0], [x1, y1], size, label, paints) {
  const reach = (size - 1) / 2;
  const rect = [
    Math.max(0, Math.floor(Math.min(x0, x1) - reach)),
    Math.max(0, Math.floor(Math.min(y0, y1) - reach)),
    Math.min(width, Math.ceil(Math.max(x0, x1) + reach) + 1),
    Math.min(height, Math.ceil(Math.max(y0, y1) + reach) + 1),
  ];
  // Half a pixel more: then a line has no gaps, and its width is the size.
  const limit = (reach + 0.5) ** 2;
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  for (let y = rect[1]; y < rect[3]; y++) {
    for (let x = rect[0], at = y * width + x; x < rect[2]; x++, at++) {
      const along = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
      const distance = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2;
      if (distance <= limit && paints(mask[at])) mask[at] = label;
    }
  }
  return rect;
}

/** Give the label to all pixels where `shape` is not 0 and `paints(value)` allows it. */
export function fill(mask, shape, label, paints) {
  for (let at = 0; at < mask.length; at++) {
    if (shape[at] && paints(mask[at])) mask[at] = label;
  }
}

/** How many pixels each label has, `count` labels. */
export function sizes(mask, count) {
  const numbers = new Array(count + 1).fill(0);
  for (const value of mask) numbers[value]++;
  return numbers.slice(1);
}

function cut(mask, width, [x0, y0, x1, y1]) {
  const part = new Uint8Array((x1 - x0) * (y1 - y0));
  for (let y = y0; y < y1; y++) part.set(mask.subarray(y * width + x0, y * width + x1), (y - y0) * (x1 - x0));
  return part;
}
