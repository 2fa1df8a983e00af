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

// Added to the configuration of the OHIF viewer that MONAI Label brings along. It lets OHIF's panel talk to this server,
// and adds what the panel lacks: a button that saves the segmentation, as the final label and as DICOM SEG.

(() => {
  const SEGMENTATION = "1"; // the only one that MONAI Label's panel has
  document.cookie = `MONAILABEL_SERVER_URL=${escape(`${location.origin}/`)}; path=/ohif`;

  async function save(button, answer) {
    button.disabled = true;
    answer.textContent = "Saving ...";
    try {
      const { segmentationService, viewportGridService, displaySetService } = window.services;
      const segmentation = segmentationService.getSegmentation(SEGMENTATION);
      if (!segmentation) throw new Error("There is nothing to save yet.");
      const { viewports, activeViewportId } = viewportGridService.getState();
      const shown = displaySetService.getDisplaySetByUID(viewports.get(activeViewportId).displaySetInstanceUIDs[0]);
      const values = segmentationService.getLabelmapVolume(SEGMENTATION).voxelManager.getCompleteScalarDataArray();
      const used = new Set(values);
      // MONAI Label gives the names to the numbers that occur, in their order.
      const names = Object.values(segmentation.segments)
        .filter(({ segmentIndex }) => used.has(segmentIndex))
        .sort((a, b) => a.segmentIndex - b.segmentIndex)
        .map(({ segmentIndex, label }) => ({ name: label, idx: segmentIndex }));
      if (!names.length) throw new Error("There is nothing to save yet.");
      const form = new FormData();
      form.append("params", JSON.stringify({ label_info: names }));
      form.append("label", new Blob([Uint8Array.from(values)]), "label.bin");
      const query = new URLSearchParams({ image: shown.SeriesInstanceUID, tag: "final" });
      const reply = await fetch(`/datastore/label?${query}`, { method: "PUT", body: form });
      if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).detail ?? `The server failed (${reply.status}).`);
      answer.textContent = `Saved: ${names.map(({ name }) => name).join(", ")}.`;
    } catch (error) {
      answer.textContent = error.message;
    }
    button.disabled = false;
  }

  function addButton() {
    const panel = document.querySelector(".monaiLabelPanel");
    if (!panel || panel.querySelector(".monai-ext-save") || !panel.querySelector(".tabs")) return;
    const button = Object.assign(document.createElement("button"), {
      className: "actionButton monai-ext-save",
      textContent: "Save label",
      type: "button",
    });
    const answer = Object.assign(document.createElement("p"), { className: "subtitle" });
    answer.setAttribute("role", "status");
    button.onclick = () => save(button, answer);
    panel.querySelector(".tabs").before(button, answer);
  }

  // React builds the panel anew whenever it likes.
  new MutationObserver(addButton).observe(document, { childList: true, subtree: true });
})();
