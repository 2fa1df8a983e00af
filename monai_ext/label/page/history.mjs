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

// What can be taken back. A step holds a patch of the mask (or null) and the object at work before and after it.

const BYTES = 256 * 2 ** 20;

export class History {
  constructor(limit = BYTES) {
    this.limit = limit;
    this.past = [];
    this.future = [];
    this.start = {};
  }

  /** The step that was done last; it tells states apart, as for what is saved. */
  get position() {
    return this.past.at(-1) ?? this.start;
  }

  /** Remember a step; what was taken back before is gone, and the oldest steps are forgotten when memory is full. */
  push(step) {
    this.future = [];
    this.past.push(step);
    let bytes = this.past.reduce((sum, { patch }) => sum + weight(patch), 0);
    while (bytes > this.limit && this.past.length > 1) {
      this.start = this.past.shift();
      bytes -= weight(this.start.patch);
      this.start.patch = null;
    }
  }

  /** Take the last step back and return it; undefined if there is none. */
  undo() {
    const step = this.past.pop();
    if (step) this.future.push(step);
    return step;
  }

  /** Do again what was taken back last, and return it; undefined if there is nothing. */
  redo() {
    const step = this.future.pop();
    if (step) this.past.push(step);
    return step;
  }
}

function weight(patch) {
  return patch ? 2 * patch.before.length : 0;
}
