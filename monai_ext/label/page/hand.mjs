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

// The mouse, a pen and the keyboard on the picture. The keyboard moves a cross, and the space bar does what a mouse
// button does.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NEAR = 3; // CSS pixels: a box smaller than that is a slip

export class Hand {
  #app;
  #canvas;
  #viewport;
  #draw;
  #drag = null; // what a held button does: { move(point), end() }
  #corner = null; // the first corner of a box that the keyboard draws

  /** `draw()` asks for another frame; `tool` and `size` say what is in hand. */
  constructor(canvas, app, viewport, draw) {
    this.#app = app;
    this.#canvas = canvas;
    this.#viewport = viewport;
    this.#draw = draw;
    this.tool = "positive";
    this.size = 15;
    this.point = null; // the pixel under the pointer
    this.cross = null; // the pixel of the keyboard
    this.outline = null; // the box that is being drawn
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.#up());
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.letGo());
  }

  /** Whether the brush or the eraser is in hand. */
  get draws() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  /** Lay down what is half done: a stroke ends, a box is forgotten. Returns whether there was anything. */
  letGo() {
    const busy = this.#drag !== null || this.#corner !== null;
    this.#app.current?.annotation.endStroke();
    this.#drag = this.#corner = this.outline = null;
    this.#draw();
    return busy;
  }

  #down(event) {
    if (!this.#app.current || this.#drag) return;
    this.cross = null;
    this.#canvas.setPointerCapture(event.pointerId);
    const point = this.#pixel(event);
    if (event.button === 1 || this.tool === "hand") this.#drag = this.#panning([event.clientX, event.clientY]);
    else if (event.button === 2 || event.button === 0) this.#begin(point, event.button === 2);
  }

  #begin(point, right) {
    if (this.draws && !right) {
      if (this.#startStroke(point)) {
        this.#drag = { move: (to) => this.#app.current.annotation.strokeTo(to), end: () => this.letGo() };
      }
    } else if (this.tool === "box" && !right) {
      this.#drag = this.#boxing(point);
    } else if (!this.draws && this.#inside(point)) {
      this.#app.click(point, this.tool === "positive" && !right);
    }
  }

  #startStroke(point) {
    const { label, keepOthers } = this.#app;
    if (!this.#app.mayDraw()) return false;
    const [painted, only] = this.tool === "brush" ? [label, 0] : [0, label];
    this.#app.current.annotation.startStroke(point, this.size, painted, { keepOthers, only });
    return true;
  }

  #boxing(from) {
    return {
      move: (to) => {
        this.outline = this.#box(from, to);
        this.#draw();
      },
      end: () => {
        const box = this.outline;
        this.outline = null;
        const { scale } = this.#viewport;
        if (box && Math.min(box[2] - box[0], box[3] - box[1]) * scale >= NEAR) this.#app.box(box);
        this.#draw();
      },
    };
  }

  #panning(last) {
    return {
      move: (_, [x, y]) => {
        this.#viewport.pan(x - last[0], y - last[1]);
        last = [x, y];
        this.#draw();
      },
      end: () => {},
    };
  }

  #move(event) {
    // A fast hand moves further than one event tells.
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) this.#drag?.move(this.#pixel(each), [each.clientX, each.clientY]);
    this.#hover(this.#pixel(event));
  }

  #up() {
    const drag = this.#drag;
    this.#drag = null;
    drag?.end();
  }

  #hover(point) {
    this.point = point;
    this.#draw();
  }

  #wheel(event) {
    event.preventDefault();
    if (!this.#app.current) return;
    const { left, top } = this.#canvas.getBoundingClientRect();
    const steps = -event.deltaY / (event.deltaMode ? 3 : 100);
    this.#viewport.zoom(Math.max(-2, Math.min(2, steps)), [event.clientX - left, event.clientY - top]);
    this.#hover(this.#pixel(event));
  }

  #key(event) {
    if (!this.#app.current || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== " ") return;
    event.preventDefault();
    const { width, height } = this.#app.current.annotation;
    if (arrow) {
      const [x, y] = this.cross ?? this.#middle();
      const step = event.shiftKey ? 10 : 1;
      this.cross = [
        Math.min(width - 1, Math.max(0, x + step * arrow[0])),
        Math.min(height - 1, Math.max(0, y + step * arrow[1])),
      ];
      this.#drag?.move(this.cross, this.#viewport.toWindow(this.cross));
      if (this.#corner) this.outline = this.#box(this.#corner, this.cross);
      this.#viewport.reveal(this.cross);
    } else if (!event.repeat) {
      this.cross ??= this.#middle();
      this.#press(this.cross);
    }
    this.point = null;
    this.#draw();
  }

  #press(point) {
    if (this.tool === "hand") return;
    if (this.tool === "box" && this.#corner) {
      const box = this.#box(this.#corner, point);
      this.#corner = this.outline = null;
      this.#app.box(box);
    } else if (this.tool === "box") {
      this.#corner = point;
      this.outline = this.#box(point, point);
    } else if (this.#drag) {
      this.#up();
    } else {
      this.#begin(point, false);
    }
  }

  /** The pixel in the middle of the window. */
  #middle() {
    const { width, height } = this.#app.current.annotation;
    const [x, y] = this.#viewport.toPicture([this.#viewport.width / 2, this.#viewport.height / 2]).map(Math.floor);
    return [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  }

  #pixel(event) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return this.#viewport.toPicture([event.clientX - left, event.clientY - top]).map(Math.floor);
  }

  #inside([x, y]) {
    const { width, height } = this.#app.current.annotation;
    return x >= 0 && y >= 0 && x < width && y < height;
  }

  /** Both pixels and all between them, within the picture: its right and lower ends are left out. */
  #box([x0, y0], [x1, y1]) {
    const { width, height } = this.#app.current.annotation;
    const within = (value, size) => Math.min(size, Math.max(0, value));
    return [
      within(Math.min(x0, x1), width),
      within(Math.min(y0, y1), height),
      within(Math.max(x0, x1) + 1, width),
      within(Math.max(y0, y1) + 1, height),
    ];
  }
}
