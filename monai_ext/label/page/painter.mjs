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

// Draws the picture, the mask over it, the clicks and the cursors. The mask lies on a canvas of the picture's size, of
// which a change repaints the changed rectangle; the window shows the part of it that is in sight.

const HEX = ["#35c6f4", "#3ddc84", "#f2e35c", "#e57fe0", "#7b8cff", "#ff9d4d", "#b7f04a", "#00b3a1", "#ff7d8a", "#c9a7ff"];

/** The colour of a label 1, 2, ...; they repeat after ten. */
export function colour(label) {
  return HEX[(label - 1) % HEX.length];
}

// As numbers of four bytes in the order of a canvas's memory: red, green, blue, alpha.
const PIXELS = (() => {
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  for (let label = 1; label < 256; label++) {
    const number = parseInt(colour(label).slice(1), 16);
    bytes.set([number >> 16, (number >> 8) & 255, number & 255, 255], 4 * label);
  }
  return table;
})();

export class Painter {
  #canvas;
  #pen;
  #viewport;
  #overlay = document.createElement("canvas");
  #overlayPen = null;
  #asked = false;

  /** `scene()` gives what is to be drawn: { picture, annotation, opacity, cross, brush, box }, or null for nothing. */
  constructor(canvas, viewport, scene) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d", { alpha: false });
    this.#viewport = viewport;
    this.scene = scene;
  }

  /** Another picture. */
  begin({ width, height, mask }) {
    this.#overlay.width = width;
    this.#overlay.height = height;
    this.#overlayPen = this.#overlay.getContext("2d");
    this.colourMask(mask, width, [0, 0, width, height]);
  }

  /** Repaint a rectangle of the mask. */
  colourMask(mask, width, [x0, y0, x1, y1]) {
    // Strips keep the memory small when all of a large picture changes.
    const strip = Math.max(1, Math.floor(2 ** 20 / (x1 - x0)));
    for (let top = y0; top < y1; top += strip) {
      const bottom = Math.min(y1, top + strip);
      const image = new ImageData(x1 - x0, bottom - top);
      const pixels = new Uint32Array(image.data.buffer);
      for (let y = top, at = 0; y < bottom; y++) {
        for (let from = y * width + x0, end = from + x1 - x0; from < end; from++, at++) pixels[at] = PIXELS[mask[from]];
      }
      this.#overlayPen.putImageData(image, x0, top);
    }
  }

  /** Draw before the next frame; many calls draw once. */
  draw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    const pen = this.#pen;
    const ratio = devicePixelRatio;
    const [width, height] = [this.#viewport.width, this.#viewport.height].map((size) => Math.round(size * ratio));
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#15171a";
    pen.fillRect(0, 0, width, height);
    const scene = this.scene();
    if (!scene) return;
    const [x0, y0, x1, y1] = this.#viewport.visible();
    if (x0 < x1 && y0 < y1) {
      const [left, top] = this.#viewport.toWindow([x0, y0]);
      const scale = this.#viewport.scale;
      const place = [x0, y0, x1 - x0, y1 - y0, left, top, (x1 - x0) * scale, (y1 - y0) * scale];
      pen.imageSmoothingEnabled = scale * ratio < 2;
      pen.imageSmoothingQuality = "medium";
      pen.drawImage(scene.picture, ...place);
      pen.globalAlpha = scene.opacity;
      if (scene.opacity > 0) pen.drawImage(this.#overlay, ...place);
      pen.globalAlpha = 1;
    }
    this.#drawPrompts(scene.annotation.object);
    if (scene.box) this.#outline(scene.box, "#ffffff");
    if (scene.brush) this.#circle(scene.brush);
    if (scene.cross) this.#cross(scene.cross);
  }

  #drawPrompts(object) {
    if (!object) return;
    if (object.box) this.#outline(object.box, colour(object.label));
    for (const [x, y, positive] of object.points) {
      const [left, top] = this.#viewport.toWindow([x + 0.5, y + 0.5]);
      const pen = this.#pen;
      pen.beginPath();
      pen.arc(left, top, 7, 0, 2 * Math.PI);
      pen.fillStyle = positive ? "#1d8f4e" : "#c62f3c";
      pen.fill();
      pen.lineWidth = 2;
      pen.strokeStyle = "#ffffff";
      pen.stroke();
      pen.beginPath();
      pen.moveTo(left - 3.5, top);
      pen.lineTo(left + 3.5, top);
      if (positive) {
        pen.moveTo(left, top - 3.5);
        pen.lineTo(left, top + 3.5);
      }
      pen.stroke();
    }
  }

  #outline([x0, y0, x1, y1], style) {
    const [left, top] = this.#viewport.toWindow([x0, y0]);
    const [right, bottom] = this.#viewport.toWindow([x1, y1]);
    this.#twice(style, () => this.#pen.rect(left, top, right - left, bottom - top));
  }

  #circle({ point: [x, y], size }) {
    const [left, top] = this.#viewport.toWindow([x + 0.5, y + 0.5]);
    const radius = Math.max(1.5, (size * this.#viewport.scale) / 2);
    this.#twice("#ffffff", () => this.#pen.arc(left, top, radius, 0, 2 * Math.PI));
  }

  #cross([x, y]) {
    const [left, top] = this.#viewport.toWindow([x + 0.5, y + 0.5]);
    this.#twice("#ffffff", () => {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        this.#pen.moveTo(left + 4 * dx, top + 4 * dy);
        this.#pen.lineTo(left + 14 * dx, top + 14 * dy);
      }
    });
  }

  // A dark line under the light one is seen on every picture.
  #twice(style, path) {
    for (const [width, strokeStyle] of [[3.5, "#000000b0"], [1.5, style]]) {
      this.#pen.beginPath();
      path();
      this.#pen.lineWidth = width;
      this.#pen.strokeStyle = strokeStyle;
      this.#pen.stroke();
    }
  }
}
