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

// The page: joins its controls and keys with the app.

import { App } from "./app.mjs";
import { Drafts } from "./drafts.mjs";
import { Hand } from "./hand.mjs";
import { colour, Painter } from "./painter.mjs";
import { Server } from "./server.mjs";
import { Viewport } from "./viewport.mjs";

const TRAINING_EVERY = 4000; // milliseconds between two looks at a training
const ADDED = "monai_ext_labels";
const $ = (id) => document.getElementById(id);

const viewport = new Viewport();
const server = new Server(new URL("../", location.href), askPassword);
let hidden = false;
let shownLabels = [];

const ui = {
  status: (text) => ($("status").textContent = text),

  error(error) {
    console.error(error);
    $("error-text").textContent = error.message;
    $("error").hidden = false;
  },

  /** Something about the picture in sight changed, its mask in `rect`. */
  changed(rect) {
    const { annotation } = app.current;
    if (rect) painter.colourMask(annotation.mask, annotation.width, rect);
    $("undo").disabled = !annotation.history.past.length;
    $("redo").disabled = !annotation.history.future.length;
    $("save").disabled = false;
    $("finish").disabled = !annotation.object;
    document.title = `${app.dirty ? "● " : ""}${app.current.id} - ${app.name}`;
    $("picture-name").textContent = `${app.current.id}${app.dirty ? " (not saved)" : ""}`;
    painter.draw();
  },

  opened() {
    const { annotation } = app.current;
    hand.cross = hand.point = null;
    viewport.fit(annotation.width, annotation.height);
    painter.begin(annotation);
    $("error").hidden = true;
    $("segment").disabled = !app.task;
    $("canvas").setAttribute("aria-label", `Picture ${app.current.id}`);
    showLabels();
    ui.changed(null);
    listPictures();
  },

  listed: () => listPictures(),

  conflict() {
    const dialog = $("conflict");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    });
  },
};

const app = new App(server, null, ui);
const painter = new Painter($("canvas"), viewport, scene);
const hand = new Hand($("canvas"), app, viewport, () => painter.draw());

function scene() {
  if (!app.current) return null;
  const at = hand.point ?? hand.cross;
  $("place").textContent = at ? `${at[0]}, ${at[1]} - ${Math.round(viewport.scale * 100)} %` : "";
  return {
    ...app.current,
    opacity: hidden ? 0 : $("opacity").value / 100,
    box: hand.outline,
    brush: at && hand.draws ? { point: at, size: hand.size } : null,
    cross: hand.cross,
  };
}

function listPictures() {
  const { pictures, unsaved, current } = app;
  const wanted = $("filter").value.toLowerCase();
  const shown = pictures.filter(({ id }) => id.toLowerCase().includes(wanted));
  const focused = document.activeElement?.closest("#pictures button")?.dataset.id;
  $("pictures").replaceChildren(...shown.map(({ id, saved }) => pictureItem(id, saved, unsaved.has(id), current?.id)));
  const again = [...$("pictures").querySelectorAll("button")];
  again.find(({ dataset }) => dataset.id === focused)?.focus();
  again.find(({ dataset }) => dataset.id === current?.id)?.scrollIntoView({ block: "nearest" });
  $("count").textContent = `${pictures.filter(({ saved }) => saved).length} of ${pictures.length} saved`;
}

function pictureItem(id, saved, unsaved, currentId) {
  const button = element("button", { type: "button", title: id });
  button.dataset.id = id;
  if (id === currentId) button.setAttribute("aria-current", "true");
  const mark = unsaved ? "unsaved" : saved ? "saved" : "";
  button.append(
    element("span", { className: "name", textContent: id }),
    element("span", { className: unsaved ? "mark unsaved" : "mark", textContent: mark }),
  );
  const item = element("li");
  item.append(button);
  return item;
}

function showLabels() {
  const added = JSON.parse(sessionStorage.getItem(ADDED) ?? "[]");
  const names = [...new Set([...app.taskLabels, ...added, ...(app.current?.said ?? [])])];
  shownLabels = names.map((name) => app.number(name));
  if (!shownLabels.includes(app.label)) app.label = shownLabels[0] ?? 1;
  $("labels").replaceChildren(
    ...shownLabels.map((label, index) => {
      const line = element("label");
      const input = element("input", { type: "radio", name: "label", value: label, checked: label === app.label });
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = colour(label);
      line.append(input, swatch, element("span", { textContent: app.labels[label - 1] }));
      if (index < 9) line.append(element("kbd", { textContent: index + 1 }));
      return line;
    }),
  );
}

function addLabel() {
  const name = $("new-label").value.trim();
  if (!name) return;
  const added = JSON.parse(sessionStorage.getItem(ADDED) ?? "[]");
  sessionStorage.setItem(ADDED, JSON.stringify([...new Set([...added, name])]));
  $("new-label").value = "";
  showLabels();
  chooseLabel(app.number(name));
}

function showChoices(select, values, texts = values) {
  select.replaceChildren(...values.map((value, index) => element("option", { value, textContent: texts[index] })));
}

/** A model's name for people. */
function readable(model) {
  return model.replace("_segmentation", "").replaceAll("_", " ");
}

function chooseLabel(label) {
  const input = document.querySelector(`input[name="label"][value="${label}"]`);
  if (!input) return;
  input.checked = true;
  hand.letGo();
  app.chooseLabel(label);
  ui.status(`Label: ${app.labels[label - 1]}.`);
}

function chooseTool(tool) {
  document.querySelector(`input[name="tool"][value="${tool}"]`).checked = true;
  hand.letGo();
  hand.tool = tool;
  $("canvas").style.cursor = { hand: "grab", brush: "none", eraser: "none" }[tool] ?? "crosshair";
  painter.draw();
}

function chooseSize(size) {
  $("size").value = size;
  hand.size = Number($("size").value);
  $("size-shown").textContent = `${hand.size} px`;
  painter.draw();
}

function chooseOpacity(percent) {
  $("opacity").value = percent;
  $("opacity-shown").textContent = `${$("opacity").value} %`;
  hidden = false;
  painter.draw();
}

function chooseTask(task) {
  hand.letGo();
  app.chooseTask(task);
  showChoices($("clicker"), app.taskClickers, app.taskClickers.map(readable));
  chooseClicker();
  showLabels();
  $("segment").disabled = !task || !app.current;
  if (app.trainers.includes(task)) $("trainer").value = task;
}

function chooseClicker() {
  app.clicker = $("clicker").value;
  if (app.current) app.finish(); // its clicks belong to the other model
}

function zoom(steps) {
  viewport.zoom(steps, hand.cross ? viewport.toWindow(hand.cross) : undefined);
  painter.draw();
}

function neighbour(step) {
  const ids = [...$("pictures").querySelectorAll("button")].map(({ dataset }) => dataset.id);
  const next = ids[ids.indexOf(app.current?.id) + step];
  if (next !== undefined) app.open(next);
}

function escape() {
  if (hand.letGo() || app.giveUp()) return;
  $("error").hidden = true;
  app.finish();
}

const KEYS = {
  p: () => chooseTool("positive"),
  n: () => chooseTool("negative"),
  x: () => chooseTool("box"),
  b: () => chooseTool("brush"),
  e: () => chooseTool("eraser"),
  v: () => chooseTool("hand"),
  "[": () => chooseSize(hand.size - Math.max(1, Math.round(hand.size / 8))),
  "]": () => chooseSize(hand.size + Math.max(1, Math.round(hand.size / 8))),
  Enter: () => app.finish(),
  a: () => app.segment(),
  s: () => app.save(),
  g: () => app.next($("strategy").value),
  PageUp: () => neighbour(-1),
  PageDown: () => neighbour(1),
  "+": () => zoom(1),
  "=": () => zoom(1),
  "-": () => zoom(-1),
  0: () => fit(),
  h: () => {
    hidden = !hidden;
    ui.status(hidden ? "The mask is hidden." : "The mask is shown.");
    painter.draw();
  },
  ",": () => chooseOpacity($("opacity").value - 10),
  ".": () => chooseOpacity(Number($("opacity").value) + 10),
  c: () => $("canvas").focus(),
  "?": () => $("help-window").showModal(),
};

function fit() {
  viewport.fit();
  painter.draw();
}

function key(event) {
  const { target, key: name } = event;
  if (document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey) {
    const action = { z: event.shiftKey ? redo : undo, y: redo, s: () => app.save() }[name.toLowerCase()];
    if (!action || target.matches("input[type=search], input[type=text]")) return;
    event.preventDefault();
    action();
    return;
  }
  if (event.altKey) return;
  if (name === "Escape") return escape();
  const onCanvas = target === $("canvas");
  if (!onCanvas && (!$("letters").checked || target.matches("input[type=search], input[type=text], select"))) return;
  if (name === "Enter" && target.matches("button, summary")) return;
  if (name.startsWith("Page") && target.matches("input[type=range]")) return;
  const action = /^[1-9]$/.test(name) ? () => chooseLabel(shownLabels[name - 1]) : KEYS[name] ?? KEYS[name.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

function undo() {
  hand.letGo();
  app.undo();
}

function redo() {
  hand.letGo();
  app.redo();
}

async function lookAtTraining() {
  try {
    const task = await server.training($("trainer").value);
    const last = task?.details?.at?.(-1);
    $("training-status").textContent = task ? `${task.status.toLowerCase()}${last ? `: ${last}` : ""}` : "no training yet";
  } catch (error) {
    $("training-status").textContent = error.message;
  }
}

async function train(action) {
  try {
    await action();
  } catch (error) {
    ui.error(error);
  }
  await lookAtTraining();
}

/** Ask for a name and a password; null if there is none to be had. */
function askPassword(problem) {
  const dialog = $("login");
  $("login-problem").textContent = problem;
  $("password").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const given = () => ({ name: $("user").value, password: $("password").value });
    dialog.addEventListener("close", () => resolve(dialog.returnValue ? given() : null), { once: true });
  });
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

function wire() {
  $("undo").onclick = undo;
  $("redo").onclick = redo;
  $("save").onclick = () => app.save();
  $("help").onclick = () => $("help-window").showModal();
  $("next").onclick = () => app.next($("strategy").value);
  $("finish").onclick = () => app.finish();
  $("segment").onclick = () => app.segment();
  $("error-close").onclick = () => ($("error").hidden = true);
  $("zoom-in").onclick = () => zoom(1);
  $("zoom-out").onclick = () => zoom(-1);
  $("zoom-fit").onclick = fit;
  $("zoom-one").onclick = () => zoom(Math.log(1 / viewport.scale) / Math.log(1.25));
  $("filter").oninput = listPictures;
  $("pictures").onclick = ({ target }) => {
    const id = target.closest("button")?.dataset.id;
    if (id !== undefined) app.open(id);
  };
  $("labels").onchange = ({ target }) => chooseLabel(Number(target.value));
  $("keep").onchange = ({ target }) => (app.keepOthers = target.checked);
  $("tools").onchange = ({ target }) => chooseTool(target.value);
  $("size").oninput = ({ target }) => chooseSize(target.value);
  $("opacity").oninput = ({ target }) => chooseOpacity(target.value);
  $("task").onchange = ({ target }) => chooseTask(target.value);
  $("clicker").onchange = chooseClicker;
  $("add-label").onsubmit = (event) => {
    event.preventDefault();
    addLabel();
  };
  $("letters").checked = localStorage.monai_ext_letters !== "off";
  $("letters").onchange = ({ target }) => (localStorage.monai_ext_letters = target.checked ? "on" : "off");
  $("train").onclick = () => train(() => server.train($("trainer").value));
  $("train-stop").onclick = () => train(() => server.stopTraining($("trainer").value));
  setInterval(() => $("training").open && lookAtTraining(), TRAINING_EVERY);
  $("training").ontoggle = lookAtTraining;
  addEventListener("keydown", key);
  addEventListener("focus", () => app.list().catch(() => {})); // others may have saved meanwhile
  addEventListener("beforeunload", (event) => app.dirty && event.preventDefault());
  document.addEventListener("visibilitychange", () => document.hidden && app.keepNow());
  new ResizeObserver(([{ contentRect }]) => {
    viewport.resize(contentRect.width, contentRect.height);
    painter.draw();
  }).observe($("canvas"));
}

async function start() {
  wire();
  chooseTool("positive");
  chooseSize(15);
  chooseOpacity(50);
  try {
    app.drafts = await Drafts.open(server.root.href);
  } catch {
    ui.error(new Error("This browser keeps nothing for this page, as in a private window: save before you leave."));
  }
  try {
    await app.start();
    $("title").textContent = app.name;
    const tasks = Object.keys(app.tasks);
    showChoices($("task"), [...tasks, ""], [...tasks.map(readable), "only labels of my own"]);
    showChoices($("strategy"), app.strategies);
    showChoices($("trainer"), app.trainers, app.trainers.map(readable));
    chooseTask($("task").value);
    $("training").hidden = !app.trainers.length;
    $("next").disabled = !app.strategies.length;
    ui.status(app.pictures.length ? "Choose a picture." : "The server has no pictures.");
  } catch (error) {
    ui.error(error);
  }
}

start();
