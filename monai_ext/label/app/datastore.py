# Copyright (c) monai_ext contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from monai_ext.label.studies import inside

logger = logging.getLogger(__name__)

HOUR = 3600


def _locked(method: Callable) -> Callable:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.guard:
            return method(self, *args, **kwargs)

    return call


def _replace(new: Path, old: Path) -> None:
    """Put a whole file into another one's place, on the disk and not only in its cache."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(new, old)


class SafeDatastore(LocalDatastore):
    """
    MONAI Label's folder of images and labels, made safe against being killed and against many users at once.

    MONAI Label copies a label over the old one and writes its index in place: a server that is killed then leaves half
    a label, or an index with which it does not start again. Here every file is replaced as a whole. A change is made
    to the index as it is on disk, so that the processes of trainings and batches do not undo each other's. An index
    that is damaged all the same is set aside, and made anew from the files.
    """

    _config_ts: float

    def __init__(self, datastore_path: str, *args: Any, **kwargs: Any) -> None:
        self.guard = threading.RLock()  # for the threads of this process
        self._files = FileLock(os.path.join(datastore_path, ".lock"))  # for other processes; may be taken again
        self._incoming = Path(datastore_path, ".monai_ext", "incoming")
        for leftover in self._incoming.glob("*"):  # of a process that was killed; what is young may be another's
            if time.time() - leftover.stat().st_mtime > HOUR:
                shutil.rmtree(leftover, ignore_errors=True)
        super().__init__(datastore_path, *args, **kwargs)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self.guard, self._files:
            self._reload()

    def _reconcile_datastore(self) -> None:
        with self.guard, self._files:
            super()._reconcile_datastore()

    def _reload(self) -> None:
        path = Path(self._datastore_config_path)
        if not path.exists() or (stamp := path.stat().st_mtime) == self._config_ts:
            return
        try:
            self._datastore = LocalDatastoreModel.model_validate_json(path.read_text())
        except ValueError as error:
            aside = path.with_name(f"{path.stem}-damaged-{int(time.time())}{path.suffix}")
            logger.error("%s is damaged (%s): it is kept as %s and made anew.", path, error, aside.name)
            os.replace(path, aside)
            return
        self._datastore.base_path = self._datastore_path
        self._config_ts = stamp

    def _update_datastore_file(self, lock: bool = True) -> None:
        path = Path(self._datastore_config_path)
        with self.guard, self._files, self._arriving(path.name) as temporary:
            self._ignore_event_config = True
            temporary.write_text(json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str))
            _replace(temporary, path)
            self._config_ts = path.stat().st_mtime

    @contextmanager
    def _arriving(self, name: str) -> Iterator[Path]:
        """A place on the same disk for a file that is not whole yet, where nobody looks for images."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._incoming))
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _put(self, source: str, target: str) -> None:
        with self._arriving(os.path.basename(target)) as temporary:
            shutil.copy(source, temporary)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _replace(temporary, Path(target))

    @contextmanager
    def _change(self) -> Iterator[None]:
        """The index as it is on disk, and written when the block ends."""
        with self._files:
            self._reload()
            yield
            self._update_datastore_file()

    @_locked
    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        _, extension = self._to_id(os.path.basename(label_filename))
        name = self._filename(image_id, extension)
        with self._change():
            image = self._object(image_id)
            folder = self._datastore.label_path(label_tag)
            before = image.labels.get(label_tag)
            self._put(label_filename, os.path.join(folder, name))
            info = {**(label_info or {}), "ts": int(time.time()), "name": name}
            image.labels[label_tag] = DataModel(info=info, ext=extension)
        if before is not None and before.ext != extension:  # the same label in another format
            Path(folder, self._filename(image_id, before.ext)).unlink(missing_ok=True)
        return image_id

    @_locked
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        own, extension = self._to_id(os.path.basename(image_filename))
        image_id = image_id or own
        name = self._filename(image_id, extension)
        with self._change():
            self._put(image_filename, os.path.join(self._datastore.image_path(), name))
            info = {**(image_info or {}), "ts": int(time.time()), "name": name}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=extension))
        return image_id

    @_locked
    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._change():
            self._object(image_id).image.info.update(info)

    @_locked
    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._change():
            label = self._datastore.label(label_id, label_tag)
            if not label:
                raise LabelNotFoundException(f"Label: {label_id} Tag: {label_tag} not found")
            label.info.update(info)

    def get_image_uri(self, image_id: str) -> str:
        uri = super().get_image_uri(image_id)
        return str(inside(uri, self._datastore_path)) if uri else ""

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        root = os.path.realpath(self._datastore_path)
        found = super()._list_files(path, patterns)
        # Links that lead out of the folder are no images of it.
        return {n: f for n, f in found.items() if Path(os.path.realpath(Path(path, f))).is_relative_to(root)}

    def _object(self, image_id: str) -> ImageLabelModel:
        if image_id not in self._datastore.objects:
            raise ImageNotFoundException(f"The image {image_id!r} is not in the study folder.")
        return self._datastore.objects[image_id]

    refresh = _locked(LocalDatastore.refresh)
    remove_image = _locked(LocalDatastore.remove_image)
    remove_label = _locked(LocalDatastore.remove_label)
    datalist = _locked(LocalDatastore.datalist)
    get_image_info = _locked(LocalDatastore.get_image_info)
    get_labeled_images = _locked(LocalDatastore.get_labeled_images)
    get_unlabeled_images = _locked(LocalDatastore.get_unlabeled_images)
    list_images = _locked(LocalDatastore.list_images)
    status = _locked(LocalDatastore.status)
    json = _locked(LocalDatastore.json)
