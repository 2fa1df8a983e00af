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

// Work that is not saved yet, kept in the browser (IndexedDB) until it is: { image, png, names, revision, time }.

import { decodePng, encodePng } from "./png.mjs";

const STORE = "drafts";

export class Drafts {
  #database;
  #server;

  /** Drafts of one server do not mix with those of another. */
  static async open(server) {
    const drafts = new Drafts();
    const request = indexedDB.open("monai_ext_annotate", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: ["server", "image"] });
    drafts.#database = await done(request);
    drafts.#server = server;
    return drafts;
  }

  /** Keep a mask; `revision` is the saved version that the work began with. */
  async put(image, { width, height, pixels, names, revision }) {
    const png = await encodePng(pixels, width, height);
    const record = { server: this.#server, image, png, names, revision, time: Date.now() };
    await done(this.#objects("readwrite").put(record));
  }

  /** The draft of a picture with its mask decoded, or null. */
  async get(image) {
    const record = await done(this.#objects("readonly").get([this.#server, image]));
    return record ? { ...record, ...(await decodePng(record.png)) } : null;
  }

  delete(image) {
    return done(this.#objects("readwrite").delete([this.#server, image]));
  }

  /** The ids of all pictures with a draft. */
  async images() {
    const keys = await done(this.#objects("readonly").getAllKeys());
    return new Set(keys.filter(([server]) => server === this.#server).map(([, image]) => image));
  }

  #objects(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
