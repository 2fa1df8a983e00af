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

// Where the picture lies in the window. A point of the picture is in its pixels: (0, 0) is the upper left corner of the
// first pixel, (0.5, 0.5) its middle. A point of the window is in CSS pixels.

const STEP = 1.25;
const LARGEST = 40;

export class Viewport {
  constructor() {
    this.width = this.height = this.pictureWidth = this.pictureHeight = 1;
    this.scale = 1;
    this.x = this.y = 0;
  }

  /** The window has another size; its middle stays where it was in the picture. */
  resize(width, height) {
    this.x += (width - this.width) / 2;
    this.y += (height - this.height) / 2;
    this.width = width;
    this.height = height;
    this.#keepInSight();
  }

  /** Show the whole of a picture. */
  fit(pictureWidth = this.pictureWidth, pictureHeight = this.pictureHeight) {
    this.pictureWidth = pictureWidth;
    this.pictureHeight = pictureHeight;
    this.scale = this.#whole();
    this.x = (this.width - pictureWidth * this.scale) / 2;
    this.y = (this.height - pictureHeight * this.scale) / 2;
  }

  /** Zoom in by so many steps (out, if negative); the point `at` of the window stays where it is. */
  zoom(steps, at = [this.width / 2, this.height / 2]) {
    const [x, y] = this.toPicture(at);
    const smallest = Math.min(this.#whole(), 1) / 2;
    this.scale = Math.min(LARGEST, Math.max(smallest, this.scale * STEP ** steps));
    this.x = at[0] - x * this.scale;
    this.y = at[1] - y * this.scale;
    this.#keepInSight();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#keepInSight();
  }

  /** Move the picture just so far that a point of it is at least `margin` inside the window. */
  reveal(point, margin = 40) {
    const [x, y] = this.toWindow(point);
    const inside = (value, size) => Math.min(size - margin, Math.max(margin, value)) - value;
    this.pan(inside(x, this.width), inside(y, this.height));
  }

  toPicture([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toWindow([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** The pixels in sight, `[x0, y0, x1, y1]` with the ends left out; empty where x0 = x1. */
  visible() {
    const [x0, y0] = this.toPicture([0, 0]);
    const [x1, y1] = this.toPicture([this.width, this.height]);
    const within = (value, size) => Math.min(size, Math.max(0, value));
    return [
      within(Math.floor(x0), this.pictureWidth),
      within(Math.floor(y0), this.pictureHeight),
      within(Math.ceil(x1), this.pictureWidth),
      within(Math.ceil(y1), this.pictureHeight),
    ];
  }

  #whole() {
    return Math.min(this.width / this.pictureWidth, this.height / this.pictureHeight);
  }

  // The picture never gets lost outside the window.
  #keepInSight() {
    const margin = Math.min(60, this.width / 4, this.height / 4);
    const clamp = (start, size, window) => Math.min(window - margin, Math.max(margin - size * this.scale, start));
    this.x = clamp(this.x, this.pictureWidth, this.width);
    this.y = clamp(this.y, this.pictureHeight, this.height);
  }
}
