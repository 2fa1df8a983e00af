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

// Masks as PNG files. The browser's own way, through a canvas, is not exact: it shows the colours of a palette in place
// of its numbers, halves 16 bits, and browsers that hide from trackers add noise to what is read from a canvas.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});

/** The bytes of a grey PNG of 8 bits; `pixels` holds the rows from the top. */
export async function encodePng(pixels, width, height) {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) {
    rows.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  }
  const header = new Uint8Array(13);
  const numbers = new DataView(header.buffer);
  numbers.setUint32(0, width);
  numbers.setUint32(4, height);
  header.set([8, GREY, 0, 0, 0], 8);
  const data = await through(rows, new CompressionStream("deflate"));
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return joined(parts);
}

/**
 * The stored numbers of a PNG, `{ width, height, pixels }`: grey values, or the indices of a palette.
 * Colours must be grey, and a second channel of transparency is left out.
 */
export async function decodePng(bytes) {
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) throw new Error("it is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let header = null;
  let at = 8;
  for (let type = ""; type !== "IEND"; ) {
    if (at + 12 > bytes.length || at + 12 + view.getUint32(at) > bytes.length) throw new Error("it is cut off");
    const length = view.getUint32(at);
    const body = bytes.subarray(at + 8, at + 8 + length);
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (view.getUint32(at + 8 + length) !== crc32(bytes.subarray(at + 4, at + 8 + length))) {
      throw new Error("it is damaged");
    }
    if (type === "IHDR") header = readHeader(body);
    if (type === "IDAT") data.push(body);
    at += 12 + length;
  }
  const { width, height, depth, colour } = header;
  const channels = CHANNELS[colour];
  const stride = Math.ceil((width * channels * depth) / 8);
  const rows = await through(joined(data), new DecompressionStream("deflate"));
  if (rows.length !== (stride + 1) * height) throw new Error("it is damaged");
  const samples = unpacked(unfiltered(rows, stride, height, Math.max(1, (channels * depth) / 8)), header, stride);
  return { width, height, pixels: channels === 1 ? samples : oneChannel(samples, channels) };
}

function readHeader(body) {
  const numbers = new DataView(body.buffer, body.byteOffset);
  const [depth, colour, , , interlaced] = body.subarray(8);
  if (interlaced) throw new Error("it is interlaced; save it without");
  return { width: numbers.getUint32(0), height: numbers.getUint32(4), depth, colour };
}

/** Undo the five filters of PNG, in place; the result has no filter bytes. */
function unfiltered(rows, stride, height, step) {
  const pixels = new Uint8Array(stride * height);
  const none = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (stride + 1)];
    const row = pixels.subarray(y * stride, (y + 1) * stride);
    const above = y ? pixels.subarray((y - 1) * stride, y * stride) : none;
    row.set(rows.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    if (filter === 0) continue;
    for (let x = 0; x < stride; x++) {
      const left = x < step ? 0 : row[x - step];
      if (filter === 1) row[x] += left;
      else if (filter === 2) row[x] += above[x];
      else if (filter === 3) row[x] += (left + above[x]) >> 1;
      else row[x] += paeth(left, above[x], x < step ? 0 : above[x - step]);
    }
  }
  return pixels;
}

function paeth(left, above, corner) {
  const toLeft = Math.abs(above - corner);
  const toAbove = Math.abs(left - corner);
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

/** One number for each sample, whatever its bits. */
function unpacked(bytes, { width, height, depth, colour }, stride) {
  const perRow = width * CHANNELS[colour];
  if (depth === 8) return bytes;
  if (depth === 16) {
    const view = new DataView(bytes.buffer);
    return Uint16Array.from({ length: perRow * height }, (_, index) => view.getUint16(2 * index));
  }
  const samples = new Uint8Array(perRow * height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < perRow; x++, at++) {
      const byte = bytes[y * stride + ((x * depth) >> 3)];
      samples[at] = (byte >> (8 - depth - ((x * depth) & 7))) & ((1 << depth) - 1);
    }
  }
  return samples;
}

function oneChannel(samples, channels) {
  const pixels = new samples.constructor(samples.length / channels);
  for (let index = 0, at = 0; index < pixels.length; index++, at += channels) {
    if (channels > 2 && (samples[at] !== samples[at + 1] || samples[at] !== samples[at + 2])) {
      throw new Error("it is a colour picture, not a mask of one channel");
    }
    pixels[index] = samples[at];
  }
  return pixels;
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

function chunk(type, body) {
  const bytes = new Uint8Array(12 + body.length);
  const numbers = new DataView(bytes.buffer);
  numbers.setUint32(0, body.length);
  bytes.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(body, 8);
  numbers.setUint32(8 + body.length, crc32(bytes.subarray(4, 8 + body.length)));
  return bytes;
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
